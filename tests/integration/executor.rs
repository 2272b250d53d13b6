//! The interface between the runner and executors: a second executor, with its own queue in another process.

use crate::project::caco_path;
use caco_engine::{
    command::{self, Place},
    confine::Confinement,
    event::Outcome,
    exec::{self, Ended, Executor, Handle, Launch, Report},
    graph::Graph,
    plan::Plan,
    pool::{self, Allocation, Pool, Request},
    run::{Options, Prepared, Programs, Runner},
    signals::Signals,
    store::Store,
};
use caco_pipeline::{
    kind::Registry,
    pipeline::{Overlay, Pipeline, Stage},
};
use std::{
    collections::HashSet,
    fs,
    io::{self, Write as _},
    os::fd::RawFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Runs scripts one after another: `sh` reads their names, and writes a status beside each.
#[derive(Debug)]
struct Queue {
    spool: PathBuf,
    names: Mutex<Option<ChildStdin>>,
    server: Child,
    submitted: AtomicUsize,
    pool: Pool,
}

const SERVER: &str = r#"while read -r job; do
    if [ -e "$job.cancelled" ]; then echo 143 > "$job.status.new"; else
        sh "$job" & echo $! > "$job.pid"; wait $!; echo $? > "$job.status.new"
    fi
    mv "$job.status.new" "$job.status"
done"#;

impl Queue {
    fn start(spool: &Path) -> Queue {
        let mut server = Command::new("sh").args(["-c", SERVER]).stdin(Stdio::piped()).spawn().unwrap();
        let names = Mutex::new(server.stdin.take());
        Queue { spool: spool.into(), names, server, submitted: AtomicUsize::new(0), pool: whole() }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.names.lock().unwrap().take());
        self.server.wait().unwrap();
    }
}

#[derive(Debug)]
struct Job(PathBuf);

impl Executor for Queue {
    fn pool(&self) -> &Pool {
        &self.pool
    }
    fn has_room(&self) -> bool {
        true
    }
    /// It has a queue: what cannot run yet waits there.
    fn allocate(&self, _: Request) -> Option<Allocation> {
        Some(Allocation::of_cpus(1))
    }
    fn start(&self, launch: &Launch, _: &Allocation, _: RawFd, ended: Ended) -> io::Result<Box<dyn Handle>> {
        let number = self.submitted.fetch_add(1, Ordering::SeqCst);
        let (script, file) = (self.spool.join(format!("{number}.sh")), self.spool.join(format!("{number}.json")));
        launch.write(&file)?;
        fs::write(&script, format!("exec '{}' exec-stage '{}'\n", caco_path().display(), file.display()))?;
        writeln!(self.names.lock().unwrap().as_mut().unwrap(), "{}", script.display())?;
        let status = script.with_extension("sh.status");
        std::thread::spawn(move || {
            while !status.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            let code = fs::read_to_string(status).unwrap();
            let none = Report { outcome: exec::Outcome::Failed(format!("the queue says {code}")), refusals: None };
            ended(Launch::report(&file).unwrap().unwrap_or(none));
        });
        Ok(Box::new(Job(script)))
    }
}

impl Handle for Job {
    fn interrupt(&self) {
        self.kill();
    }
    fn kill(&self) {
        fs::write(self.0.with_extension("sh.cancelled"), "").unwrap();
        if let Ok(process) = fs::read_to_string(self.0.with_extension("sh.pid")) {
            let _ = Command::new("kill").arg(process.trim()).status();
        }
    }
    fn group(&self) -> Option<u32> {
        None
    }
    fn report(&self) {}
}

/// Commands, which may open the machine's software and what they declare.
struct Commands(Confinement);

impl Programs for Commands {
    fn launch(&self, prepared: &Prepared) -> anyhow::Result<Launch> {
        let command = command::read(prepared.stage.parameters())?;
        let Prepared { inputs, work, cpus, gpus, .. } = prepared;
        let machine = &self.0;
        command::launch(&command, &Place { inputs, work, cpus: *cpus, gpus, allow: &[], machine })
    }
    fn resources(&self, _stage: &Stage, _pool: &Pool) -> pool::Usual {
        pool::Usual { cpus: 1, gpus: 0 }
    }
}

fn whole() -> Pool {
    Pool { cpus: 2, gpus: vec![], memory_mib: 1024 }
}

/// Runs a pipeline in its own store. Returns the outcome, and the digests of all outputs by stage.
fn run(pipeline: &str, executor: &dyn Executor, store: &Path) -> (Outcome, Vec<String>) {
    let registry = Registry::commands();
    let pipeline = Pipeline::parse(Path::new("p.ron"), pipeline.into(), &Overlay::default(), registry).unwrap();
    let (graph, store, signals) = (Graph::new(pipeline).unwrap(), Store::open(store).unwrap(), Signals::default());
    let plan = Plan::checked(&graph, graph.order(), &store, &HashSet::new()).unwrap();
    let options = Options { keep_going: true, max_time: None, silence: Duration::from_secs(60) };
    let path = std::env::var_os("PATH").unwrap();
    let programs = Commands(Confinement::of_machine(&path, &[store.root().into()]));
    let runner = Runner::new(&graph, &store, plan, &programs, executor, options, &signals);
    let outcome = runner.run(&mut |_| ()).unwrap();
    let digests = graph.order().iter().filter_map(|id| {
        let published = outcome.results.get(id)?;
        let outputs: Vec<String> = published.outputs.iter().map(|o| format!("{} {}", o.name, o.blake3)).collect();
        Some(format!("{}: {}", graph.stage(*id).name, outputs.join(", ")))
    });
    let digests = digests.collect();
    (outcome, digests)
}

/// `SECRET` is a file that no stage declares.
const PIPELINE: &str = r#"(stages: {
    "one": command(shell: "echo it\\'s one > out", outputs: ["out"]),
    "two": command(shell: "cat one one > out", inputs: {"one": Stage("one")}, outputs: ["out"]),
    "three": command(argv: ["sh", "-c", "echo \"$0 $1\" > out", "a b", "$HOME"], outputs: ["out"], isolation: None),
    "fails": command(shell: "echo no >&2; exit 3", outputs: ["out"]),
    "reads": command(shell: "cat SECRET > out", outputs: ["out"]),
    "behind": command(shell: "cat fails > out", inputs: {"fails": Stage("fails")}, outputs: ["out"]),
})"#;

#[test]
fn another_executor_gives_the_same_results_and_failures() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("spool")).unwrap();
    fs::write(at("secret"), "not declared").unwrap();
    let pipeline = PIPELINE.replace("SECRET", at("secret").to_str().unwrap());
    let queue = Queue::start(&at("spool"));
    let (local, digests) = run(&pipeline, &exec::Local::new(whole()), &at("local"));
    let (queued, same) = run(&pipeline, &queue, &at("queued"));
    assert_eq!(digests.len(), 3);
    assert_eq!(digests, same);
    assert_eq!(queue.submitted.load(Ordering::SeqCst), 5, "one attempt a stage, and none behind the failed one");
    let whys = |outcome: &Outcome| {
        let mut whys: Vec<String> = outcome.failed.iter().map(|failed| failed.why.clone()).collect();
        whys.sort();
        whys
    };
    assert_eq!(whys(&local), whys(&queued));
    assert!(whys(&queued)[0].starts_with("exit code 1; it may not read") && whys(&queued)[0].contains("secret"));
    assert_eq!(whys(&queued)[1], "exit code 3");
    assert!(queued.failed.iter().any(|failed| failed.end_of_log(100) == "no\n"));
    assert_eq!((local.skipped.len(), queued.skipped.len()), (1, 1));
}
