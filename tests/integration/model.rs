//! Tests random pipelines and random edits against an independent model of what must run. The model knows what each
//! stage computes and which computations were done before, but nothing of keys, digests or stores.

use crate::project::{Project, ran};
use proptest::{prelude::*, sample::Index};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many source files a pipeline may read.
const SOURCES: usize = 3;

/// A stage: adds `salt` and all numbers it reads, modulo a small number, so that different inputs often give equal
/// outputs.
#[derive(Clone, Debug)]
struct Stage {
    name: String,
    salt: u32,
    modulus: u32,
    /// For each input, a source file or an earlier stage.
    inputs: Vec<From>,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Source(usize),
    Stage(usize),
}

#[derive(Clone, Debug)]
struct World {
    sources: [u32; SOURCES],
    stages: Vec<Stage>,
}

/// What a stage computes: the command, and what it reads.
type Work = (u32, u32, Vec<u32>);

#[derive(Clone, Debug)]
enum Edit {
    Source(usize, u32),
    Salt(Index, u32),
    Modulus(Index, u32),
    /// An input of a stage changes its source.
    Rewire(Index, Index, Index),
    Rename(Index),
    /// Only the order of the file changes.
    Shuffle,
}

impl World {
    /// What each stage computes, and its result, in the order of the stages.
    fn work(&self) -> Vec<(Work, u32)> {
        let mut done: Vec<(Work, u32)> = vec![];
        for stage in &self.stages {
            let read = stage.inputs.iter().map(|from| match from {
                From::Source(i) => self.sources[*i],
                From::Stage(i) => done[*i].1,
            });
            let read: Vec<u32> = read.collect();
            let result = (stage.salt + read.iter().sum::<u32>()) % stage.modulus;
            done.push(((stage.salt, stage.modulus, read), result));
        }
        done
    }

    /// The pipeline file, with stages and inputs in an order that depends on `turn`.
    fn text(&self, turn: usize) -> String {
        let mut stages: Vec<String> = self.stages.iter().map(|stage| self.stage_text(stage, turn)).collect();
        let count = stages.len();
        stages.rotate_left(turn % count);
        if turn % 2 == 1 {
            stages.reverse();
        }
        format!("(stages: {{\n{}}})", stages.concat())
    }

    fn stage_text(&self, stage: &Stage, turn: usize) -> String {
        let source = |from: &From| match from {
            From::Source(i) => format!("Path(\"s{i}\")"),
            From::Stage(i) => format!("Stage(\"{}\")", self.stages[*i].name),
        };
        let mut inputs: Vec<String> =
            stage.inputs.iter().enumerate().map(|(i, from)| format!("\"i{i}\": {}", source(from))).collect();
        if turn % 2 == 1 {
            inputs.reverse();
        }
        let line = format!(
            "n={}; for f in i?; do n=$((n + $(cat $f))); done; echo $((n % {})) > out",
            stage.salt, stage.modulus
        );
        format!(
            "\"{}\": command(shell: \"{line}\", inputs: {{{}}}, outputs: [\"out\"]),\n",
            stage.name,
            inputs.join(", ")
        )
    }

    fn edit(&mut self, edit: &Edit, turn: usize) {
        let count = self.stages.len();
        match edit {
            Edit::Source(i, value) => self.sources[*i] = *value,
            Edit::Salt(of, salt) => self.stages[of.index(count)].salt = *salt,
            Edit::Modulus(of, modulus) => self.stages[of.index(count)].modulus = *modulus,
            Edit::Rewire(of, input, to) => {
                let of = of.index(count);
                let input = input.index(self.stages[of].inputs.len());
                self.stages[of].inputs[input] = from(to, of);
            }
            Edit::Rename(of) => self.stages[of.index(count)].name += &format!("-{turn}"),
            Edit::Shuffle => {}
        }
    }
}

/// A source file, or one of the first `before` stages.
fn from(choice: &Index, before: usize) -> From {
    match choice.index(SOURCES + before) {
        i if i < SOURCES => From::Source(i),
        i => From::Stage(i - SOURCES),
    }
}

fn world() -> impl Strategy<Value = World> {
    let stage = (0..3u32, 1..4u32, prop::collection::vec(any::<Index>(), 1..4));
    (prop::array::uniform3(0..3u32), prop::collection::vec(stage, 1..9)).prop_map(|(sources, stages)| {
        let stage = |(i, (salt, modulus, inputs)): (usize, (u32, u32, Vec<Index>))| {
            let inputs = inputs.iter().map(|choice| from(choice, i)).collect();
            Stage { name: format!("stage-{i}"), salt, modulus, inputs }
        };
        World { sources, stages: stages.into_iter().enumerate().map(stage).collect() }
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (0..SOURCES, 0..3u32).prop_map(|(i, value)| Edit::Source(i, value)),
        2 => (any::<Index>(), 0..3u32).prop_map(|(of, salt)| Edit::Salt(of, salt)),
        2 => (any::<Index>(), 1..4u32).prop_map(|(of, modulus)| Edit::Modulus(of, modulus)),
        2 => any::<(Index, Index, Index)>().prop_map(|(of, input, to)| Edit::Rewire(of, input, to)),
        1 => any::<Index>().prop_map(Edit::Rename),
        1 => Just(Edit::Shuffle),
    ]
}

/// The keys of a plan, by stage. Checks that the plan is in topological order.
fn keys(project: &Project, world: &World) -> BTreeMap<String, String> {
    let plan = project.json(&["plan", "p.ron", "--json"]);
    let steps: Vec<(&str, &str)> = plan
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["stage"].as_str().unwrap(), s["key"].as_str().unwrap_or("")))
        .collect();
    let place = |name: &str| steps.iter().position(|(stage, _)| *stage == name).unwrap();
    for stage in &world.stages {
        for from in &stage.inputs {
            if let From::Stage(i) = from {
                assert!(place(&world.stages[*i].name) < place(&stage.name), "{} is planned too early", stage.name);
            }
        }
    }
    steps.into_iter().map(|(stage, key)| (stage.to_string(), key.to_string())).collect()
}

/// Runs, and compares what ran with the model: work that was never done before, once each.
fn run_as_predicted(project: &Project, world: &World, known: &mut HashSet<Work>) {
    let work = world.work();
    let new: HashSet<&Work> = work.iter().map(|(work, _)| work).filter(|work| !known.contains(*work)).collect();
    let outcome = project.json(&["run", "p.ron", "--json", "-j", "2"]);
    let of: HashMap<&str, usize> = world.stages.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    let order: Vec<usize> =
        outcome["ran"].as_array().unwrap().iter().map(|r| of[r["stage"].as_str().unwrap()]).collect();
    let done: HashSet<&Work> = order.iter().map(|i| &work[*i].0).collect();
    assert_eq!(done, new, "ran {:?}", ran(&outcome));
    assert_eq!(order.len(), done.len(), "something ran twice: {:?}", ran(&outcome));
    for (at, i) in order.iter().enumerate() {
        for from in &world.stages[*i].inputs {
            let late = matches!(from, From::Stage(read) if order[at..].contains(read));
            assert!(!late, "{} ended before a stage that it reads from", world.stages[*i].name);
        }
    }
    known.extend(work.into_iter().map(|(work, _)| work));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_edit_reruns_what_an_independent_model_says(mut world in world(), edits in prop::collection::vec(edit(), 1..6)) {
        let project = Project::new();
        let mut known = HashSet::new();
        let write = |world: &World, turn: usize| {
            project.write("p.ron", &world.text(turn));
            world.sources.iter().enumerate().for_each(|(i, n)| project.write(&format!("s{i}"), &format!("{n}\n")));
        };
        write(&world, 0);
        run_as_predicted(&project, &world, &mut known);
        for (turn, edit) in edits.iter().enumerate() {
            world.edit(edit, turn);
            write(&world, turn + 1);
            run_as_predicted(&project, &world, &mut known);
            let planned = keys(&project, &world);
            prop_assert!(planned.values().all(|key| key.len() == 64), "a second run has nothing to do");
            prop_assert!(project.run(&[]).is_empty(), "a second run runs nothing");
            write(&world, turn + 2);
            prop_assert_eq!(keys(&project, &world), planned, "the order of file and maps is in no key");
            for (stage, (_, result)) in world.stages.iter().zip(world.work()) {
                project.ok(&["get", &stage.name, "result", "--pipeline", "p.ron"]);
                prop_assert_eq!(project.read("result"), format!("{result}\n"));
            }
        }
    }
}
