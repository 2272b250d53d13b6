//! What a run shows while it goes on: a line for each running stage on a terminal, plain lines elsewhere.

use crate::{
    engine::{
        event::{Event, How},
        graph::{Graph, Id},
        plan::{Plan, Step},
    },
    job::Progress,
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    io::IsTerminal,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A run's display.
pub struct Display<'g> {
    graph: &'g Graph,
    total: usize,
    live: bool,
    bars: MultiProgress,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    done: usize,
    running: HashMap<Id, Stage>,
    looked: Option<Instant>,
}

struct Stage {
    bar: ProgressBar,
    work: PathBuf,
}

/// How often progress files are read.
const LOOK: Duration = Duration::from_millis(250);

impl<'g> Display<'g> {
    /// The display of a plan's run, on stderr.
    pub fn new(graph: &'g Graph, plan: &Plan) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some() || std::env::var_os("CI").is_some();
        let live = std::io::stderr().is_terminal() && !plain;
        let target = if live { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        let total = plan.count(|step| matches!(step, Step::Run(_) | Step::MayRun));
        Display { graph, total, live, bars: MultiProgress::with_draw_target(target), state: RefCell::default() }
    }

    /// Shows what happened.
    pub fn event(&self, event: &Event) {
        let mut state = self.state.borrow_mut();
        match event {
            Event::Started { id, work, attempt, resumes } => {
                let name = &self.graph.stage(*id).name;
                let bar = self.bars.add(ProgressBar::new(0).with_style(waiting()).with_prefix(name.clone()));
                state.running.insert(*id, Stage { bar, work: work.to_path_buf() });
                let how = match (attempt, resumes) {
                    (1, false) => "started".to_string(),
                    (1, true) => "goes on where it was stopped".to_string(),
                    (n, _) => format!("started, try {n}"),
                };
                if !self.live {
                    self.line(&state, &format!("{name}  {how}"));
                }
            }
            Event::Done { id, how, took } => {
                state.done += 1;
                clear(&mut state, *id);
                let name = &self.graph.stage(*id).name;
                let how = match how {
                    How::Ran => format!("done in {}", duration(*took)),
                    How::Hit => "unchanged, its result is there".into(),
                    How::Shared => "made elsewhere".into(),
                };
                self.line(&state, &format!("{name}  {how}"));
            }
            Event::Failed { id, failure, again } => {
                clear(&mut state, *id);
                let name = &self.graph.stage(*id).name;
                let again = again.map_or(String::new(), |pause| format!("; tried again in {}", duration(pause)));
                self.line(&state, &format!("{name}  failed: {}{again}", failure.why));
            }
            Event::Elsewhere { id } => {
                self.line(&state, &format!("{}  is being computed by another run; waiting", self.graph.stage(*id).name))
            }
            Event::Stopping { running } => {
                self.line(
                    &state,
                    &format!("stopping: {running} running stage(s) write a checkpoint; again to kill them"),
                );
            }
            Event::Diverges { id, key } => {
                let name = &self.graph.stage(*id).name;
                self.line(&state, &format!("{name}  gave other bytes than before under the same key {}; both are kept, the older one stands", key.0.short()));
            }
            Event::Tick => self.look(&mut state),
        }
    }

    /// Clears the live part.
    pub fn finish(&self) {
        let _ = self.bars.clear();
    }

    fn line(&self, state: &State, text: &str) {
        let width = self.total.to_string().len();
        let line = format!("[{:>width$}/{}] {text}", state.done, self.total);
        if self.live {
            let _ = self.bars.println(line);
        } else {
            eprintln!("{line}");
        }
    }

    fn look(&self, state: &mut State) {
        if !self.live || state.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        state.looked = Some(Instant::now());
        for stage in state.running.values() {
            let text = fs::read(stage.work.join("progress.json")).unwrap_or_default();
            if let Ok(Progress { done, total, unit, note }) = serde_json::from_slice(&text) {
                if stage.bar.length() != Some(total) {
                    stage.bar.set_style(counting(&unit));
                    stage.bar.set_length(total);
                }
                stage.bar.set_position(done);
                stage.bar.set_message(note);
            }
            stage.bar.tick();
        }
    }
}

fn clear(state: &mut State, id: Id) {
    if let Some(stage) = state.running.remove(&id) {
        stage.bar.finish_and_clear();
    }
}

fn waiting() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix:24} {spinner} {elapsed}").expect("the template is right")
}

fn counting(unit: &str) -> ProgressStyle {
    let template = format!("  {{prefix:24}} {{bar:24}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| waiting())
}

/// `1 record`, `2 records`.
pub fn count(n: impl Into<u64>, noun: &str) -> String {
    let n = n.into();
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Bytes for people: `1.20 GiB`.
pub fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// A duration for people: `0.03 s`, `42.0 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs_f64();
    match seconds {
        s if s < 1.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}
