//! One attempt at a stage: from its key to a process, and from the process's end to what is to be published.

use super::{
    super::{
        confine::Confinement,
        digest::{self, Digest},
        environment,
        event::{Before, Event, Failed, Failure},
        exec::{Handle, Launch, Outcome, Report},
        external::External,
        graph::{Edge, Id, Origin},
        key::Key,
        listing::{self, Content},
        liveness::Liveness,
        mounts::Mounts,
        place::{self, Given},
        plan::{Ask, ask},
        pool::Allocation,
        printable::tail,
        publish::{Finished, Placed, Publisher, Read, ReadFrom},
        refusal::Refusal,
        stat,
        store::{self, Artifact, Lock, Published},
        uncollected::Uncollected,
        undeclared,
    },
    Message, Prepared, Runner, Running, State,
};
use anyhow::{Context, ensure};
use caco_pipeline::{job, progress::PROGRESS};
use std::{
    collections::BTreeMap,
    fs,
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    time::{Duration, Instant, SystemTime},
};

/// How often a stage that hung is tried again at least, whatever its file says: what made it hang, such as a network store that
/// was unreachable, is often over, and it resumes from its checkpoint.
const HUNG_RETRIES: u32 = 3;

/// How often a stage is planned again because its inputs changed before it started.
const REPLANS: u32 = 5;

/// An input changed while it was being placed.
#[derive(Debug, thiserror::Error)]
#[error("its input {} changed while it was being placed", .0.display())]
struct ChangedInput(PathBuf, External);

/// Why a queued stage cannot start under its key.
enum Stale {
    /// It has another key now. The input that changed, where it is known.
    OtherKey(Option<PathBuf>),
    /// It cannot run any more in this run, and why.
    Gone(String),
}

/// Reports the end of an attempt. One that an executor drops without a report is lost, and failed.
struct Unreported {
    id: Id,
    sender: Option<Sender<Message>>,
}

impl Unreported {
    fn send(&mut self, report: Report) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Message::Ended(self.id, report));
        }
    }
}

impl Drop for Unreported {
    fn drop(&mut self) {
        self.send(Report { outcome: Outcome::Failed("the executor lost it".into()), refusals: None });
    }
}

impl<'r> Runner<'r> {
    /// Starts a queued stage on the resources that it has been given.
    pub(super) fn start(
        &mut self,
        id: Id,
        key: Key,
        lock: Lock,
        allocation: Allocation,
        watch: &mut dyn FnMut(Event),
    ) -> store::Result<()> {
        let graph = self.graph;
        let work = self.store.work(key);
        let before = Before::of(&work);
        Failed::forget(&work);
        *self.attempts.entry(id).or_default() += 1;
        self.log_starts.insert(id, fs::metadata(work.join("log")).map_or(0, |log| log.len()));
        let preimage = match self.key_now(id, key) {
            Ok(preimage) => preimage,
            Err(stale) => return self.stale(id, key, stale, watch),
        };
        // Whether it is used or not, it counts once.
        let kept = Uncollected::take(&work).filter(|_| self.attempts[&id] == 1 && !self.forced.contains(&id));
        if let Some(kept) = kept.filter(|_| work.join("out").is_dir()) {
            return self.collect_again(id, key, lock, preimage, kept, watch);
        }
        match self.launch(id, &work, lock.fd(), &allocation) {
            Err(error) => match error.downcast::<ChangedInput>() {
                Ok(ChangedInput(path, at)) => {
                    self.outside.reread(&at, &self.store.stat);
                    self.stale(id, key, Stale::OtherKey(Some(path)), watch)
                }
                Err(error) => self.fail(self.failure(id, key, format!("{error:#}")), Some(0), watch),
            },
            Ok((process, launch, inputs)) => {
                if let (Some(guard), Some(group)) = (&mut self.guard, process.group()) {
                    guard.add(group);
                }
                let timeout =
                    graph.stage(id).policy.timeout_minutes.map(|m| Duration::from_secs_f64(m.max(0.0) * 60.0));
                let started = Instant::now();
                let running = Running {
                    process,
                    liveness: Liveness::of(&work, self.options.silence),
                    silent: None,
                    confinement: launch.confinement,
                    mounts: launch.mounts,
                    env: launch.env,
                    lock,
                    preimage,
                    inputs,
                    started,
                    began: SystemTime::now(),
                    deadline: timeout.map(|t| started + t),
                    before,
                    allocation,
                    timed_out: false,
                    killed_at: None,
                };
                self.running.insert(id, running);
                self.states.insert(id, State::Running(key));
                watch(Event::Started { id, key, work: &work, attempt: self.attempts[&id], before });
                Ok(())
            }
        }
    }

    /// Collects what a program wrote in an earlier run, without running it.
    fn collect_again(
        &mut self,
        id: Id,
        key: Key,
        lock: Lock,
        preimage: String,
        kept: Uncollected,
        watch: &mut dyn FnMut(Event),
    ) -> store::Result<()> {
        let work = self.store.work(key);
        let inputs = match self.inputs_read(id, None) {
            Ok(inputs) => inputs,
            Err(error) => return self.fail(self.failure(id, key, format!("{error:#}")), Some(0), watch),
        };
        self.states.insert(id, State::Publishing(key));
        watch(Event::Started { id, key, work: &work, attempt: 1, before: Before::Uncollected });
        self.collect.push(Finished {
            id,
            key,
            preimage,
            lock,
            work,
            began: kept.began,
            took: kept.took,
            attempt: kept.attempt,
            resumed: false,
            cpus: kept.cpus,
            gpus: kept.gpus.clone(),
            inputs,
            conditions: kept.conditions.clone(),
            kept: Some(kept),
        });
        Ok(())
    }

    /// Checks a stage's inputs outside the store for changes since the plan. Returns its preimage, if its key is still the
    /// same. Another stage that reads the same input may have noticed a change before.
    fn key_now(&mut self, id: Id, key: Key) -> Result<String, Stale> {
        let mut changed = None;
        for edge in self.graph.edges(id) {
            let Origin::Path(Ok(at)) = &edge.from else { continue };
            self.outside.refresh(at, &self.store.stat);
            if self.outside.is_as_planned(at) {
                continue;
            }
            // It is read by what the plan knows of it, in an index, so the whole plan is out of date.
            if !edge.hashed {
                return Err(Stale::Gone(format!("{} was changed since the run began; run again", at.path.display())));
            }
            changed.get_or_insert_with(|| at.path.clone());
        }
        match ask(self.graph, id, &self.outside, |of| self.published(of)) {
            Ask::Known(now, preimage) if now == key => Ok(preimage),
            Ask::Missing(missing) => Err(Stale::Gone(missing.into_iter().next().map_or_else(String::new, |m| m.why))),
            _ => Err(Stale::OtherKey(changed)),
        }
    }

    /// Plans a stage again whose inputs changed before it started, or lets it fail where a retry cannot help.
    fn stale(&mut self, id: Id, key: Key, stale: Stale, watch: &mut dyn FnMut(Event)) -> store::Result<()> {
        let path = match stale {
            Stale::Gone(why) => return self.fail(self.failure(id, key, why), None, watch),
            Stale::OtherKey(path) => path,
        };
        let planned = self.replanned.entry(id).or_default();
        *planned += 1;
        if *planned > REPLANS {
            let why = "its inputs change again and again; run when nobody writes to them".into();
            return self.fail(self.failure(id, key, why), None, watch);
        }
        self.release(id, key);
        self.attempts.remove(&id);
        self.states.insert(id, State::Waiting);
        watch(Event::Replanned { id, path: path.as_deref() });
        self.advance(id, watch)
    }

    /// Empties its folder of what an earlier attempt wrote, collects its inputs, and starts its program.
    fn launch(
        &self,
        id: Id,
        work: &Path,
        lock: RawFd,
        allocation: &Allocation,
    ) -> anyhow::Result<(Box<dyn Handle>, Launch, Vec<Read>)> {
        let out = work.join("out");
        for folder in [&out, &work.join("byproducts")] {
            store::remove_folder(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        // The log of the last attempt is continued, unless the stage replaced it: opening a pipe there would block.
        let log = work.join("log");
        if fs::symlink_metadata(&log).is_ok_and(|meta| !meta.is_file()) {
            fs::remove_file(&log)
                .or_else(|_| fs::remove_dir_all(&log))
                .with_context(|| format!("cannot remove {}", log.display()))?;
        }
        // The progress of the last attempt is not this one's.
        let _ = fs::remove_file(work.join(PROGRESS));
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let mut inputs = vec![];
        for edge in self.graph.edges(id) {
            let slot = &*edge.slot;
            inputs.push(match &edge.from {
                Origin::Path(Ok(at)) => {
                    let found = self.outside.found(at);
                    let executable = found.is_some_and(|found| matches!(*found.content, Content::File(_, true)));
                    let whole = found.is_some_and(|found| found.plain && is_large_folder(&found.content));
                    Given { slot, at: at.clone(), executable, whole }
                }
                Origin::Path(Err((path, variable))) => {
                    anyhow::bail!("{path}: the environment variable {variable} is not set")
                }
                // It is found by the stage itself.
                Origin::Tool(_) => continue,
                Origin::Output(of, output) => {
                    let published = self.published(*of).filter(|published| published.output(output).is_some());
                    let published = published
                        .with_context(|| format!("stage '{}' wrote no {output}", self.graph.stage(*of).name))?;
                    self.still_whole(published)?;
                    let artifact = published.output(output).expect("filtered above");
                    let at = External::whole(&self.store.materialise(artifact)?);
                    // A folder of the store has no links.
                    let whole = artifact.folder && place::is_large(self.files_of(artifact)?, artifact.size);
                    Given { slot, at, executable: artifact.executable, whole }
                }
            });
        }
        let (cpus, gpus) = (allocation.cpus, allocation.gpus());
        let prepared = Prepared { stage: self.graph.stage(id), inputs, work, cpus, gpus };
        let launch = self.programs.launch(&prepared)?;
        let inputs = self.inputs_read(id, Some((&out, &launch.mounts)))?;
        let mut unreported = Unreported { id, sender: Some(self.sender.clone()) };
        let ended = Box::new(move |report| unreported.send(report));
        Ok((self.executor.start(&launch, allocation, lock, ended)?, launch, inputs))
    }

    /// Hands what a stage's process left to the publisher, or says why there is nothing to hand on.
    pub(super) fn ended(
        &mut self,
        id: Id,
        Report { outcome, refusals }: Report,
        publisher: &Publisher,
        watch: &mut dyn FnMut(Event),
    ) -> store::Result<()> {
        let Some(running) = self.running.remove(&id) else { return Ok(()) };
        if let (Some(guard), Some(group)) = (&mut self.guard, running.process.group()) {
            guard.remove(group);
        }
        let State::Running(key) = self.states[&id] else { unreachable!("its process was running") };
        let work = self.store.work(key);
        // A command's exit codes are its own.
        let outcome = match outcome {
            Outcome::Stalled if self.graph.stage(id).is_command => {
                Outcome::Failed(format!("exit code {}", job::STALLED))
            }
            Outcome::Stopped if self.graph.stage(id).is_command => {
                Outcome::Failed(format!("exit code {}", job::STOPPED))
            }
            outcome => outcome,
        };
        let hung = running.silent.is_some() || outcome == Outcome::Stalled;
        let (cpus, gpus) = (running.allocation.cpus, running.allocation.gpus());
        drop(running.allocation);
        // Only where it ran is it known whether the kernel confined it.
        let is_shut_out = !self.graph.stage(id).is_command || refusals.is_some() || !running.mounts.is_empty();
        if !is_shut_out {
            self.written_to = true;
            self.store.doubt();
        }
        let why = match outcome {
            Outcome::Done => {
                if let Err(error) = running.mounts.reveal(&work) {
                    drop(running.lock);
                    return self.fail(self.failure(id, key, error.to_string()), Some(0), watch);
                }
                self.states.insert(id, State::Publishing(key));
                let attempt = self.attempts[&id];
                publisher.send(Finished {
                    id,
                    key,
                    preimage: running.preimage,
                    lock: running.lock,
                    work,
                    began: running.began,
                    took: running.started.elapsed(),
                    attempt,
                    resumed: running.before != Before::Nothing,
                    cpus,
                    gpus,
                    inputs: running.inputs,
                    conditions: self.conditions(id, refusals, &running.env),
                    kept: None,
                });
                return Ok(());
            }
            outcome if self.stopping || outcome == Outcome::Stopped && !running.timed_out => {
                self.release(id, key);
                self.stop(id);
                watch(Event::Stopped { id });
                return Ok(());
            }
            _ if running.timed_out => {
                let minutes = self.graph.stage(id).policy.timeout_minutes.unwrap_or_default();
                format!("took longer than its time limit of {minutes} minutes; raise `run: (timeout_minutes: …)`")
            }
            _ if running.silent.is_some() => {
                let silent = running.silent.unwrap_or_default().as_secs();
                format!("gave no sign of life for {silent} s and was killed; its log has the states of its threads")
            }
            Outcome::Stalled => {
                let end = self.failure(id, key, String::new()).end_of_log(4 << 10);
                tail(&end, 1).concat().trim_start_matches("error: ").into()
            }
            Outcome::Failed(why) => why + &self.refused(id, running.confinement.as_ref(), refusals, &work),
            Outcome::Stopped => {
                unreachable!("it was asked to stop by this run, at its time limit, or by somebody else")
            }
        };
        // Who looks into its folder finds its inputs.
        let _ = running.mounts.reveal(&work);
        drop(running.lock);
        self.fail(self.failure(id, key, why), Some(if hung { HUNG_RETRIES } else { 0 }), watch)
    }

    /// A description of the attempt that just failed.
    pub(super) fn failure(&self, id: Id, key: Key, why: String) -> Failure {
        let work = self.store.work(key);
        let log_start = self.log_starts.get(&id).copied().unwrap_or_default();
        Failure { stage: id, key, why, log: work.join("log"), work, log_start }
    }

    /// What the stage was refused, for its error.
    fn refused(
        &self,
        id: Id,
        confinement: Option<&Confinement>,
        refusals: Option<Vec<Refusal>>,
        work: &Path,
    ) -> String {
        let Some(confinement) = confinement else { return String::new() };
        let input = |edge: &'r Edge| match &edge.from {
            Origin::Path(Ok(at)) => Some((&*edge.slot, at.path.clone())),
            Origin::Output(of, output) => {
                Some((&*edge.slot, self.store.materialise(self.published(*of)?.output(output)?).ok()?))
            }
            _ => None,
        };
        let inputs: Vec<(&str, PathBuf)> = self.graph.edges(id).iter().filter_map(input).collect();
        let inputs: Vec<(&str, &Path)> = inputs.iter().map(|(slot, path)| (*slot, path.as_path())).collect();
        let log_start = self.log_starts.get(&id).copied().unwrap_or_default();
        undeclared::words(work, confinement, refusals, &inputs, log_start, &self.graph.pipeline.root)
    }

    /// What beside its key a stage ran under, for its record.
    fn conditions(&self, id: Id, refused: Option<Vec<Refusal>>, env: &[(String, String)]) -> serde_json::Value {
        let stage = self.graph.stage(id);
        if !stage.is_command {
            return serde_json::json!({ "environment": environment::noted(env, stage.is_portable) });
        }
        let tool = |edge: &Edge| match &edge.from {
            Origin::Tool(name) => self.outside.tool(name).ok().map(|tool| (name.to_string(), tool.version.clone())),
            _ => None,
        };
        let tools: BTreeMap<String, String> = self.graph.edges(id).iter().filter_map(tool).collect();
        let isolation = if refused.is_some() { "Landlock" } else { "None" };
        serde_json::json!({ "isolation": isolation, "refused": refused.unwrap_or_default(), "tools": tools })
    }

    /// The number of files in a folder. That of one whose size says enough is not counted.
    fn files_of(&self, folder: &Artifact) -> store::Result<usize> {
        let known = place::is_large(0, folder.size);
        if known { Ok(0) } else { self.store.listing(folder).map(|listing| listing.files.len()) }
    }

    /// Checks the objects of a result once more, if a stage has ended that could have written to them.
    fn still_whole(&self, published: &Published) -> anyhow::Result<()> {
        let sound = !self.written_to || self.store.check_with_folders(published)?;
        ensure!(
            sound,
            "what it reads from {} was changed in the store by a stage that is not confined; it is in the quarantine, run again",
            published.key.0.short()
        );
        Ok(())
    }

    /// What the stage is about to read, with the contents that its key is made of. What was copied into its folder `out`
    /// must be just that. Without one, the program has read it before.
    fn inputs_read(&self, id: Id, placed: Option<(&Path, &Mounts)>) -> anyhow::Result<Vec<Read>> {
        let placed = placed.filter(|_| self.graph.stage(id).is_command);
        let mut read = vec![];
        for edge in self.graph.edges(id) {
            let placed = placed.filter(|_| edge.hashed).map(|(out, mounts)| (out.join(&*edge.slot), mounts));
            let copy = placed.as_ref().filter(|(at, mounts)| !mounts.reach(at)).map(|(at, _)| at);
            let from = match &edge.from {
                Origin::Path(Ok(at)) => {
                    let Some(found) = self.outside.found(at) else { continue };
                    let content = found.content.clone();
                    let changed = || ChangedInput(at.path.clone(), at.clone());
                    let placed = match (copy, &placed) {
                        (Some(copy), _) => Placed::Copy(copied(copy, &content)?.with_context(changed)?),
                        (None, Some((at, mounts))) => {
                            ensure!(parts_hold(at, &content, mounts)?, changed());
                            Placed::Itself(found.stamp)
                        }
                        (None, None) => Placed::Itself(found.stamp),
                    };
                    ReadFrom::Outside { at: at.clone(), content, placed }
                }
                Origin::Path(Err(_)) => continue,
                Origin::Tool(name) => match self.outside.tool(name) {
                    Ok(tool) => ReadFrom::Tool(tool.clone()),
                    Err(_) => continue,
                },
                Origin::Output(of, output) => {
                    let Some(result) = self.published(*of).cloned() else { continue };
                    if let (Some(artifact), Some(copy)) = (result.output(output), copy) {
                        ensure!(
                            digest_of(copy)? == artifact.blake3,
                            "what it reads from {} is damaged in the store; run `caco cache verify`, then run again",
                            result.key.0.short()
                        );
                    }
                    ReadFrom::Output { stage: *of, output: output.clone(), result }
                }
            };
            read.push(Read { slot: edge.slot.clone(), hashed: edge.hashed, from });
        }
        Ok(read)
    }
}

fn is_large_folder(content: &Content) -> bool {
    matches!(content, Content::Folder(listing) if place::is_large(listing.files.len(), listing.size()))
}

/// SHA-256 of a copy, or of the listing of a copied folder. None: the copy is not what it was made from.
fn copied(copy: &Path, content: &Content) -> anyhow::Result<Option<Digest>> {
    match content {
        Content::File(expected, _) => {
            let (blake3, sha256, _) =
                digest::both_of_file(copy).with_context(|| format!("cannot read {}", copy.display()))?;
            Ok((blake3 == *expected).then_some(sha256))
        }
        Content::Folder(listing) => {
            let same = digest_of(copy)? == listing.digest();
            Ok(same.then(|| digest::sha256(listing.text().as_bytes())))
        }
    }
}

/// Whether the files of a folder that are copies, beside others that are mounted, are what they were made from.
fn parts_hold(folder: &Path, content: &Content, mounts: &Mounts) -> anyhow::Result<bool> {
    let Content::Folder(listing) = content else { return Ok(true) };
    let copies = listing.files.iter().map(|file| (folder.join(&file.path), file.digest));
    for (copy, expected) in copies.filter(|(copy, _)| !mounts.cover(copy)) {
        if digest::of_file(&copy).with_context(|| format!("cannot read {}", copy.display()))? != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The digest of a file or folder in a stage's folder, which the cache of digests must not hold: it will be removed.
fn digest_of(path: &Path) -> anyhow::Result<Digest> {
    let found = listing::of_path(&External::whole(path), &stat::Cache::none())?;
    Ok(found.with_context(|| format!("{} is gone", path.display()))?.content.digest())
}
