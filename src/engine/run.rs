//! The runner: a small state machine that takes stages from waiting to done. It starts nothing itself (`exec`), decides
//! nothing about keys (`plan`), and writes no result (`publish`).

mod attempt;

use super::{
    attest::Attest,
    confine::Confinement,
    event::{Before, Event, Failed, Failure, How, Outcome},
    exec::{Executor, Handle, Launch, Report},
    gpu::Gpu,
    graph::{Graph, Id},
    guard::Guard,
    key::Key,
    liveness::Liveness,
    mounts::Mounts,
    place::Given,
    plan::{Ask, Outside, Plan, Step, ask},
    pool::{self, Allocation, Pool, Request},
    publish::{Fault, Finished, News, Publisher, Read},
    signals::Signals,
    store::{self, Lock, Published, Store},
};
use caco_pipeline::pipeline::Stage;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant, SystemTime},
};

/// Where a stage is on its way.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// A stage that it reads from is not done.
    Waiting,
    /// Its key is known, its result is not there; it waits for room.
    Queued(Key),
    /// Another run, or another stage of this one, computes its key.
    Elsewhere(Key),
    /// It failed and is tried again later.
    Pausing(Key),
    /// Its process is running.
    Running(Key),
    /// Its process succeeded and its outputs are being stored.
    Publishing(Key),
    /// Its result is there.
    Done(Published),
    /// It failed for good.
    Failed,
    /// It was asked to stop.
    Stopped,
    /// A stage that it reads from failed, was stopped or is blocked.
    Skipped,
}

/// How a run is to go.
#[derive(Clone, Debug)]
pub struct Options {
    /// Continue with stages that do not depend on a failed one.
    pub keep_going: bool,
    /// Stop cleanly after this long.
    pub max_time: Option<Duration>,
    /// How long a worker may be without a sign of life.
    pub silence: Duration,
}

/// The resources that a stage asks of an executor.
pub fn request(stage: &Stage, programs: &dyn Programs, executor: &dyn Executor) -> Request {
    let pool = executor.pool();
    pool.request(&stage.policy, programs.resources(stage, pool))
}

/// What one attempt at a stage is given.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// Its inputs.
    pub inputs: Vec<Given<'a>>,
    /// Its own folder, which survives a crash.
    pub work: &'a Path,
    /// CPU cores.
    pub cpus: u32,
    /// GPUs.
    pub gpus: Vec<Gpu>,
}

/// Knows which program executes a stage kind.
pub trait Programs {
    /// Prepares the stage's folder and names the program.
    fn launch(&self, prepared: &Prepared) -> anyhow::Result<Launch>;
    /// What a stage takes of a pool: GPUs, and cores where its file says nothing.
    fn resources(&self, stage: &Stage, pool: &Pool) -> pool::Usual;
}

enum Message {
    Ended(Id, Report),
    News(News),
}

impl From<News> for Message {
    fn from(news: News) -> Self {
        Message::News(news)
    }
}

struct Running {
    process: Box<dyn Handle>,
    confinement: Option<Confinement>,
    mounts: Mounts,
    /// Its environment.
    env: Vec<(String, String)>,
    lock: Lock,
    preimage: String,
    inputs: Vec<Read>,
    started: Instant,
    began: SystemTime,
    deadline: Option<Instant>,
    before: Before,
    allocation: Allocation,
    liveness: Liveness,
    /// How long it was silent before it was killed for that.
    silent: Option<Duration>,
    timed_out: bool,
    killed_at: Option<Instant>,
}

/// A run in progress.
pub struct Runner<'r> {
    graph: &'r Graph,
    store: &'r Store,
    programs: &'r dyn Programs,
    executor: &'r dyn Executor,
    options: Options,
    signals: &'r Signals,
    attest: Option<&'r dyn Attest>,
    outside: Outside,
    states: HashMap<Id, State>,
    order: Vec<Id>,
    place: HashMap<Id, usize>,
    queue: BTreeSet<usize>,
    elsewhere: Vec<Id>,
    pausing: Vec<(Instant, Id)>,
    attempts: HashMap<Id, u32>,
    replanned: HashMap<Id, u32>,
    /// What earlier runs could not collect.
    collect: Vec<Finished>,
    /// Whether a stage has ended that could write to the store.
    written_to: bool,
    /// Where in a stage's log its attempt begins.
    log_starts: HashMap<Id, u64>,
    computing: HashMap<Key, Id>,
    running: HashMap<Id, Running>,
    guard: Option<Guard>,
    forced: HashSet<Id>,
    outcome: Outcome,
    open: usize,
    stopping: bool,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a stage that ran out of time has to end by itself.
const GRACE: Duration = Duration::from_secs(10);

impl<'r> Runner<'r> {
    /// A run of a plan.
    pub fn new(
        graph: &'r Graph,
        store: &'r Store,
        plan: Plan,
        programs: &'r dyn Programs,
        executor: &'r dyn Executor,
        options: Options,
        signals: &'r Signals,
    ) -> Self {
        let (sender, receiver) = mpsc::channel();
        let order: Vec<Id> = plan.steps.iter().map(|(id, _)| *id).collect();
        let place = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let mut outcome = Outcome::default();
        let mut states = HashMap::with_capacity(order.len());
        for (id, step) in plan.steps {
            let state = match step {
                Step::Hit(published) => {
                    outcome.hits += 1;
                    State::Done(published)
                }
                Step::Run(_) | Step::MayRun => State::Waiting,
                Step::Blocked(_) | Step::Behind(_) => State::Skipped,
            };
            states.insert(id, state);
        }
        let open = states.values().filter(|s| **s == State::Waiting).count();
        outcome.skipped = order.iter().copied().filter(|id| states[id] == State::Skipped).collect();
        Runner {
            graph,
            store,
            programs,
            executor,
            options,
            signals,
            attest: None,
            outside: plan.outside,
            states,
            order,
            place,
            queue: BTreeSet::new(),
            elsewhere: vec![],
            pausing: vec![],
            attempts: HashMap::new(),
            replanned: HashMap::new(),
            collect: vec![],
            written_to: false,
            log_starts: HashMap::new(),
            computing: HashMap::new(),
            running: HashMap::new(),
            guard: None,
            forced: HashSet::new(),
            outcome,
            open,
            stopping: false,
            sender,
            receiver,
        }
    }

    /// Runs these stages although their results are in the store.
    pub fn forcing(mut self, forced: HashSet<Id>) -> Self {
        self.forced = forced;
        self
    }

    /// Asks for a signed statement about each result.
    pub fn attested(mut self, attest: &'r dyn Attest) -> Self {
        self.attest = Some(attest);
        self
    }

    /// Runs to the end. Every stage's fate is in the outcome; an error is one of the store's own.
    pub fn run(mut self, watch: &mut dyn FnMut(Event)) -> store::Result<Outcome> {
        if self.open > 0 {
            self.guard = Guard::start().ok();
        }
        let store = self.store;
        let (graph, attest) = (self.graph, self.attest);
        std::thread::scope(|scope| {
            let publisher = Publisher::start(scope, store, graph, attest, self.sender.clone());
            let started = Instant::now();
            for id in self.order.clone() {
                self.advance(id, watch)?;
            }
            while self.open > 0 {
                self.follow_signals(started, watch);
                self.revive(watch)?;
                self.fill(watch)?;
                self.collect.drain(..).for_each(|finished| publisher.send(finished));
                if self.open == 0 {
                    break;
                }
                match self.receiver.recv_timeout(TICK) {
                    Ok(message) => {
                        self.handle(message, &publisher, watch)?;
                        while let Ok(message) = self.receiver.try_recv() {
                            self.handle(message, &publisher, watch)?;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => unreachable!("the runner holds a sender itself"),
                }
                self.enforce_limits();
                watch(Event::Tick);
            }
            drop(publisher);
            Ok(())
        })?;
        for (id, state) in std::mem::take(&mut self.states) {
            if let State::Done(published) = state {
                self.outcome.results.insert(id, published);
            }
        }
        Ok(self.outcome)
    }

    fn published(&self, id: Id) -> Option<&Published> {
        match self.states.get(&id) {
            Some(State::Done(published)) => Some(published),
            _ => None,
        }
    }

    /// Moves a waiting stage on, if all that it reads from is done.
    fn advance(&mut self, id: Id, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        if self.states[&id] != State::Waiting {
            return Ok(());
        }
        let lost = |of: &Id| matches!(self.states.get(of), Some(State::Failed | State::Stopped | State::Skipped));
        if self.graph.sources(id).iter().any(lost) {
            return self.skip(id, watch);
        }
        match ask(self.graph, id, &self.outside, |of| self.published(of)) {
            Ask::Unknown => Ok(()),
            Ask::Missing(_) => self.skip(id, watch),
            Ask::Known(key, _) => {
                if !self.forced.contains(&id)
                    && let Some(found) = self.find(key)?
                {
                    return self.finish(id, found, How::Hit, Duration::ZERO, watch);
                }
                self.enqueue(id, key);
                Ok(())
            }
        }
    }

    fn find(&self, key: Key) -> store::Result<Option<Published>> {
        let _quiet = self.store.quiet()?;
        let found = match self.store.lookup(key)? {
            Some(found) if self.store.is_broken(&found) => {
                self.store.forget(&found)?;
                self.store.lookup(key)?.filter(|again| !self.store.is_broken(again))
            }
            found => found,
        };
        self.store.note_use(found.iter().map(|found| found.key))?;
        Ok(found)
    }

    fn enqueue(&mut self, id: Id, key: Key) {
        if self.stopping {
            self.stop(id);
        } else if self.computing.get(&key).is_some_and(|other| *other != id) {
            self.states.insert(id, State::Elsewhere(key));
            self.elsewhere.push(id);
        } else {
            self.computing.insert(key, id);
            self.states.insert(id, State::Queued(key));
            self.queue.insert(self.place[&id]);
        }
    }

    fn skip(&mut self, id: Id, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        self.states.insert(id, State::Skipped);
        self.outcome.skipped.push(id);
        self.open -= 1;
        watch(Event::Skipped { id });
        self.release_readers(id, watch)
    }

    fn stop(&mut self, id: Id) {
        self.states.insert(id, State::Stopped);
        self.outcome.stopped.push(id);
        self.open -= 1;
    }

    fn finish(
        &mut self,
        id: Id,
        published: Published,
        how: How,
        took: Duration,
        watch: &mut dyn FnMut(Event),
    ) -> store::Result<()> {
        match how {
            How::Ran => self.outcome.ran.push((id, published.key, took)),
            How::Hit | How::Shared => self.outcome.hits += 1,
        }
        self.release(id, published.key);
        self.states.insert(id, State::Done(published));
        self.open -= 1;
        watch(Event::Done { id, how, took });
        self.release_readers(id, watch)
    }

    /// A stage no longer computes a key. Another one of this run may.
    fn release(&mut self, id: Id, key: Key) {
        if self.computing.get(&key) == Some(&id) {
            self.computing.remove(&key);
        }
    }

    fn release_readers(&mut self, id: Id, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        for reader in self.graph.readers(id) {
            if self.states.get(&reader) == Some(&State::Waiting) {
                self.advance(reader, watch)?;
            }
        }
        Ok(())
    }

    /// Starts queued stages while there is room.
    fn fill(&mut self, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        if self.stopping || (!self.outcome.failed.is_empty() && !self.options.keep_going) {
            return self.drain_queue(watch);
        }
        let mut from = 0;
        while self.executor.has_room() {
            let Some(place) = self.queue.range(from..).next().copied() else { break };
            from = place + 1;
            let id = self.order[place];
            let State::Queued(key) = self.states[&id] else { continue };
            let request = request(self.graph.stage(id), self.programs, self.executor);
            let Some(allocation) = self.executor.allocate(request) else { continue };
            self.queue.remove(&place);
            let Some(lock) = self.store.try_lock(key)? else {
                self.states.insert(id, State::Elsewhere(key));
                self.elsewhere.push(id);
                watch(Event::Elsewhere { id });
                continue;
            };
            // Another run may have published it between the look-up and the lock.
            if !self.forced.contains(&id)
                && let Some(found) = self.find(key)?
            {
                drop(lock);
                self.finish(id, found, How::Shared, Duration::ZERO, watch)?;
                continue;
            }
            self.start(id, key, lock, allocation, watch)?;
        }
        Ok(())
    }

    /// Stages that will not be started any more.
    fn drain_queue(&mut self, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        let waiting: Vec<Id> = self
            .states
            .iter()
            .filter(|(_, s)| matches!(s, State::Queued(_) | State::Elsewhere(_) | State::Pausing(_)))
            .map(|(id, _)| *id)
            .collect();
        self.queue.clear();
        self.elsewhere.clear();
        self.pausing.clear();
        for id in waiting {
            if self.stopping {
                self.stop(id);
            } else {
                self.skip(id, watch)?;
            }
        }
        if self.running.is_empty() && !self.states.values().any(|s| matches!(s, State::Publishing(_))) {
            let rest: Vec<Id> = self.order.iter().copied().filter(|id| self.states[id] == State::Waiting).collect();
            for id in rest {
                self.states.insert(id, State::Skipped);
                self.outcome.skipped.push(id);
                self.open -= 1;
                watch(Event::Skipped { id });
            }
        }
        Ok(())
    }

    fn handle(&mut self, message: Message, publisher: &Publisher, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        match message {
            Message::Ended(id, how) => self.ended(id, how, publisher, watch),
            Message::News(News { id, key, took, result }) => match result {
                Ok(committed) => {
                    if committed.diverges.is_some() {
                        watch(Event::Diverges { id, key });
                    }
                    self.finish(id, committed.published, How::Ran, took, watch)
                }
                // Running it again would remove what is kept.
                Err(Fault { why, kept }) => self.fail(self.failure(id, key, why), (!kept).then_some(0), watch),
            },
        }
    }

    /// The attempt failed. It is tried again as often as its file says, and `least` times at least. None: a retry cannot
    /// help.
    fn fail(&mut self, mut failure: Failure, least: Option<u32>, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        let Failure { stage: id, key, .. } = failure;
        // A stage's own program seldom says so where anybody looks.
        if self.store.is_full() && !failure.why.contains(store::MAKE_ROOM) {
            failure.why += &format!("; the disk of {} is full{}", self.store.root().display(), store::MAKE_ROOM);
        }
        let tries = self.attempts[&id];
        let retries = least.map_or(0, |least| self.graph.stage(id).policy.retries.max(least));
        if tries <= retries && !self.stopping {
            let pause = Duration::from_secs(1 << (tries - 1).min(6));
            self.states.insert(id, State::Pausing(key));
            self.pausing.push((Instant::now() + pause, id));
            watch(Event::Failed { id, failure: &failure, again: Some(pause) });
            return Ok(());
        }
        Failed::of(&failure).write(&failure.work);
        self.release(id, key);
        self.states.insert(id, State::Failed);
        self.open -= 1;
        watch(Event::Failed { id, failure: &failure, again: None });
        self.outcome.failed.push(failure);
        self.release_readers(id, watch)
    }

    /// Checks stages that others compute, and those whose pause is over.
    fn revive(&mut self, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = self.pausing.drain(..).partition(|(at, _)| *at <= now);
        self.pausing = later;
        for (_, id) in due {
            if let State::Pausing(key) = self.states[&id] {
                self.states.insert(id, State::Queued(key));
                self.queue.insert(self.place[&id]);
            }
        }
        for id in std::mem::take(&mut self.elsewhere) {
            let State::Elsewhere(key) = self.states[&id] else { continue };
            let here = self.computing.get(&key).is_some_and(|other| *other != id);
            if let Some(found) = self.find(key)? {
                self.finish(id, found, How::Shared, Duration::ZERO, watch)?;
            } else if here || self.store.is_locked(key) {
                self.elsewhere.push(id);
            } else {
                self.enqueue(id, key);
            }
        }
        Ok(())
    }

    fn follow_signals(&mut self, started: Instant, watch: &mut dyn FnMut(Event)) {
        let (count, signal) = self.signals.get();
        let out_of_time = self.options.max_time.is_some_and(|limit| started.elapsed() >= limit);
        if !self.stopping && (count > 0 || out_of_time) {
            self.stopping = true;
            self.outcome.interrupted = Some(if count > 0 { signal } else { 0 });
            self.running.values().for_each(|r| r.process.interrupt());
            watch(Event::Stopping { running: self.running.len() });
        } else if count > 1 {
            self.running.values().for_each(|r| r.process.kill());
        }
    }

    fn enforce_limits(&mut self) {
        let now = Instant::now();
        for running in self.running.values_mut() {
            if running.deadline.is_some_and(|d| now >= d) && !running.timed_out {
                running.timed_out = true;
                running.killed_at = Some(now + GRACE);
                running.process.interrupt();
            }
            if let (None, Some(silent)) = (running.silent, running.liveness.look(now)) {
                running.silent = Some(silent);
                running.process.report();
                running.process.kill();
            }
            if running.killed_at.is_some_and(|at| now >= at) {
                running.killed_at = None;
                running.process.kill();
            }
        }
    }
}
