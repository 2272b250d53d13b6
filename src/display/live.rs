//! The live part of a run: which stages are running, their progress, and how long the rest takes.

use super::{
    frame::{Frame, Line, Reported, Total},
    meter::Meter,
    screen,
};
use caco_engine::{
    estimate::Costs,
    event::{Event, How},
    forecast::{self, Left, Open},
    graph::{Graph, Id},
    regular,
};
use caco_pipeline::progress::{PROGRESS, Progress};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Time between two redraws. Lines to print wait for the next one, so that a thousand small stages cost only ten
/// redraws per second.
const DRAW: Duration = Duration::from_millis(100);
/// Time between two reads of the stages' progress files.
const LOOK: Duration = Duration::from_millis(250);
/// Time between two forecasts, each of which visits all remaining stages.
const FORECAST: Duration = Duration::from_secs(1);

/// The live part.
pub struct Live<'g> {
    graph: &'g Graph,
    costs: Costs,
    /// The share of the machine that each stage to run takes.
    shares: HashMap<Id, f64>,
    /// Stages that are not done.
    open: HashSet<Id>,
    running: Vec<Running>,
    elsewhere: HashSet<Id>,
    keep_going: bool,
    /// Whether no further stages are started.
    closing: bool,
    failed: usize,
    skipped: usize,
    begun: Instant,
    /// Lines for the next redraw.
    above: String,
    left: Left,
    drawn: Option<Instant>,
    looked: Option<Instant>,
    forecast: Option<Instant>,
}

struct Running {
    id: Id,
    work: PathBuf,
    since: Instant,
    meter: Option<Meter>,
}

impl<'g> Live<'g> {
    /// Creates the live part for a run of the stages in `costs`. `share` returns the share of the machine that each
    /// takes.
    pub fn new(graph: &'g Graph, costs: Costs, share: impl Fn(Id) -> f64, keep_going: bool) -> Self {
        Live {
            graph,
            shares: costs.runs().iter().map(|id| (*id, share(*id))).collect(),
            open: costs.runs().iter().copied().collect(),
            costs,
            running: vec![],
            elsewhere: HashSet::new(),
            keep_going,
            closing: false,
            failed: 0,
            skipped: 0,
            begun: Instant::now(),
            above: String::new(),
            left: Left::Unknown,
            drawn: None,
            looked: None,
            forecast: None,
        }
    }

    /// Prints a permanent line above the live part.
    pub fn print(&mut self, line: &str) {
        self.above += line;
        self.above.push('\n');
    }

    /// Updates the state after an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Started { id, work, .. } => {
                self.elsewhere.remove(id);
                self.running.push(Running { id: *id, work: work.to_path_buf(), since: Instant::now(), meter: None });
            }
            Event::Done { id, how, took } => {
                if *how == How::Ran {
                    self.costs.learn(self.graph, *id, *took);
                }
                self.close(*id);
            }
            Event::Failed { failure, again, .. } => {
                self.running.retain(|running| running.id != failure.stage);
                if again.is_none() {
                    self.failed += 1;
                    self.closing |= !self.keep_going;
                    self.close(failure.stage);
                }
            }
            Event::Stopped { id } => self.running.retain(|running| running.id != *id),
            Event::Skipped { id } => {
                self.skipped += 1;
                self.close(*id);
            }
            Event::Elsewhere { id } => _ = self.elsewhere.insert(*id),
            Event::Stopping { .. } => self.closing = true,
            Event::Diverges { .. } | Event::Replanned { .. } => {}
            Event::Tick => self.tick(),
        }
    }

    fn close(&mut self, id: Id) {
        self.open.remove(&id);
        self.elsewhere.remove(&id);
        self.running.retain(|running| running.id != id);
    }

    fn tick(&mut self) {
        let due = |last: Option<Instant>, pause: Duration| last.is_none_or(|at| at.elapsed() >= pause);
        if !due(self.drawn, DRAW) {
            return;
        }
        if due(self.looked, LOOK) {
            self.looked = Some(Instant::now());
            self.running.iter_mut().for_each(Running::look);
        }
        if due(self.forecast, FORECAST) {
            self.forecast = Some(Instant::now());
            self.left = self.forecast();
        }
        self.drawn = Some(Instant::now());
        let (rows, columns) = screen::size();
        screen::show(&std::mem::take(&mut self.above), &self.frame().render(rows, columns));
    }

    fn frame(&self) -> Frame {
        let now = Instant::now();
        let all = self.costs.runs().len();
        let line = |running: &Running| Line {
            name: self.graph.stage(running.id).name.clone(),
            elapsed: running.since.elapsed(),
            before: self.costs.time(self.graph, running.id),
            reported: running.meter.as_ref().map(|meter| Reported {
                progress: meter.progress.clone(),
                rate: meter.rate(now),
                left: meter.left(now),
            }),
        };
        Frame {
            stages: self.running.iter().map(line).collect(),
            total: Total {
                done: all - self.open.len() - self.failed - self.skipped,
                all,
                running: self.running.len(),
                failed: self.failed,
                skipped: self.skipped,
                elsewhere: self.elsewhere.len(),
                elapsed: self.begun.elapsed(),
                left: self.left,
            },
        }
    }

    fn forecast(&self) -> Left {
        let running: HashMap<Id, &Running> = self.running.iter().map(|running| (running.id, running)).collect();
        let now = Instant::now();
        let left = |id: Id| {
            let before = self.costs.time(self.graph, id);
            match running.get(&id) {
                None => before,
                Some(running) => running
                    .meter
                    .as_ref()
                    .and_then(|meter| meter.left(now))
                    .or_else(|| before.map(|before| before.saturating_sub(running.since.elapsed()))),
            }
        };
        let awaited = |id: &Id| if self.closing { running.contains_key(id) } else { self.open.contains(id) };
        let open = self.costs.runs().iter().filter(|id| awaited(id));
        let open: Vec<_> = open.map(|id| (*id, Open { left: left(*id), share: self.shares[id] })).collect();
        forecast::left(self.graph, &open)
    }
}

impl Running {
    fn look(&mut self) {
        // A command may be writing the file right now; keep the last progress until it can be read.
        let Ok(text) = regular::read(&self.work.join(PROGRESS)) else { return };
        let Ok(progress) = serde_json::from_slice::<Progress>(&text) else { return };
        match &mut self.meter {
            Some(meter) => meter.read(progress, Instant::now()),
            none => *none = Some(Meter::new(progress, Instant::now())),
        }
    }
}

impl Drop for Live<'_> {
    /// Prints the last lines and clears the live part, however the run ended.
    fn drop(&mut self) {
        screen::show(&self.above, &[]);
    }
}
