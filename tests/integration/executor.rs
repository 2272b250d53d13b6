//! The interface between the runner and executors: a second executor, with its own queue in another process.

use caco_engine::{
    command::{self, Place},
    confine::Confinement,
    event::Outcome,
    exec::{self, Ended, Executor, Handle, Launch},
    graph::Graph,
    plan::Plan,
    pool::Pool,
    refusal::Refusal,
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
        Queue { spool: spool.into(), names, server, submitted: AtomicUsize::new(0) }
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
    fn start(&self, launch: &Launch, _lock: RawFd, ended: Ended) -> io::Result<Box<dyn Handle>> {
        let number = self.submitted.fetch_add(1, Ordering::SeqCst);
        let script = self.spool.join(format!("{number}.sh"));
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let env: Vec<String> = launch.env.iter().map(|(name, value)| quoted(&format!("{name}={value}"))).collect();
        let argv: Vec<String> = launch.argv.iter().map(|word| quoted(word)).collect();
        let [folder, log] = [&launch.folder, &launch.log].map(|path| quoted(path.to_str().unwrap()));
        fs::write(&script, format!("cd {folder} && exec env -i {} {} >> {log} 2>&1\n", env.join(" "), argv.join(" ")))?;
        writeln!(self.names.lock().unwrap().as_mut().unwrap(), "{}", script.display())?;
        let status = script.with_extension("sh.status");
        std::thread::spawn(move || {
            while !status.exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            let code = fs::read_to_string(status).unwrap();
            ended(if code.trim() == "0" {
                exec::Outcome::Done
            } else {
                exec::Outcome::Failed(format!("the queue says {}", code.trim()))
            });
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
    fn refusals(&self) -> Option<Vec<Refusal>> {
        None
    }
    fn report(&self) {}
}

/// Commands without confinement.
struct Commands;

impl Programs for Commands {
    fn launch(&self, prepared: &Prepared) -> anyhow::Result<Launch> {
        let command = command::read(prepared.stage.parameters())?;
        let Prepared { inputs, work, cpus, gpus, .. } = prepared;
        let machine = &Confinement::default();
        command::launch(&command, &Place { inputs, work, cpus: *cpus, gpus, allow: &[], machine })
    }
    fn cpus(&self, _stage: &Stage, _available: u32) -> u32 {
        1
    }
}

/// Runs a pipeline in its own store. Returns the outcome, and the digests of all outputs by stage.
fn run(pipeline: &str, executor: &dyn Executor, store: &Path) -> (Outcome, Vec<String>) {
    let registry = Registry::commands();
    let pipeline = Pipeline::parse(Path::new("p.ron"), pipeline.into(), &Overlay::default(), registry).unwrap();
    let (graph, store, signals) = (Graph::new(pipeline).unwrap(), Store::open(store).unwrap(), Signals::default());
    let plan = Plan::checked(&graph, graph.order(), &store, &HashSet::new()).unwrap();
    let pool = Pool { cpus: 2, gpus: vec![], memory_gib: 1.0 };
    let options = Options { keep_going: true, pool, max_time: None, silence: Duration::from_secs(60) };
    let runner = Runner::new(&graph, &store, plan, HashSet::new(), &Commands, options, &signals);
    let outcome = runner.executed_by(executor).run(&mut |_| ()).unwrap();
    let digests = graph.order().iter().filter_map(|id| {
        let published = outcome.results.get(id)?;
        let outputs: Vec<String> = published.outputs.iter().map(|o| format!("{} {}", o.name, o.blake3)).collect();
        Some(format!("{}: {}", graph.stage(*id).name, outputs.join(", ")))
    });
    let digests = digests.collect();
    (outcome, digests)
}

const PIPELINE: &str = r#"(stages: {
    "one": command(shell: "echo it\\'s one > out", outputs: ["out"], isolation: None),
    "two": command(shell: "cat one one > out", inputs: {"one": Stage("one")}, outputs: ["out"], isolation: None),
    "three": command(argv: ["sh", "-c", "echo \"$0 $1\" > out", "a b", "$HOME"], outputs: ["out"], isolation: None),
    "fails": command(shell: "echo no >&2; exit 3", outputs: ["out"], isolation: None),
    "behind": command(shell: "cat fails > out", inputs: {"fails": Stage("fails")}, outputs: ["out"], isolation: None),
})"#;

#[test]
fn another_executor_gives_the_same_results_and_failures() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("spool")).unwrap();
    let queue = Queue::start(&at("spool"));
    let (local, digests) = run(PIPELINE, &exec::Local, &at("local"));
    let (queued, same) = run(PIPELINE, &queue, &at("queued"));
    assert_eq!(digests.len(), 3);
    assert_eq!(digests, same);
    assert_eq!(queue.submitted.load(Ordering::SeqCst), 4, "one attempt a stage, and none behind the failed one");
    assert_eq!(local.failed[0].why, "exit code 3");
    assert_eq!(queued.failed[0].why, "the queue says 3");
    assert!(queued.failed[0].end_of_log(100).contains("no"));
    assert_eq!((local.skipped.len(), queued.skipped.len()), (1, 1));
}
