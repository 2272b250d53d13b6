//! Runs the program in a pseudo-terminal, and reads its screen.

use crate::{
    process::PATIENCE,
    project::{Project, caco_path},
};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::{
    io::{Read, Write},
    sync::{Arc, Mutex},
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

fn size((rows, cols): (u16, u16)) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    /// Starts `caco` in a project, in a terminal of this size.
    pub fn start(project: &Project, args: &[&str], rows: u16, columns: u16, env: &[(&str, &str)]) -> Self {
        let pty = native_pty_system().openpty(size((rows, columns))).unwrap();
        let mut command = CommandBuilder::new(caco_path());
        command.args(args);
        command.cwd(project.path());
        // A key of the project's own, which no line announces.
        project.signer();
        command.env("CACO_KEYS", project.path().join(".keys"));
        ["CI", "NO_COLOR", "CACO_CACHE", "CACO_PIPELINE", "CACO_DATA", "RUST_LOG"]
            .iter()
            .for_each(|name| command.env_remove(name));
        command.env("TERM", "xterm-256color");
        command.env("GO", project.path());
        env.iter().for_each(|(name, value)| command.env(name, value));
        let child = pty.slave.spawn_command(command).unwrap();
        drop(pty.slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let mut from = pty.master.try_clone_reader().unwrap();
        let shown = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..n]);
            }
        });
        Terminal { master: pty.master, child, screen, reader: Some(reader) }
    }

    /// The text on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen satisfies `seen`, and returns its text.
    pub fn wait_for(&self, what: &str, seen: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text();
            if seen(&text) {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "waited too long for {what}; the terminal shows\n{text}");
            sleep(Duration::from_millis(10));
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
        self.master.resize(size((rows, columns))).unwrap();
    }

    /// Types some keys.
    pub fn type_in(&self, keys: &str) {
        self.master.take_writer().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the program has ended. Returns its exit code and the text on the screen.
    pub fn end(mut self) -> (u32, String) {
        let code = self.child.wait().unwrap().exit_code();
        drop(self.reader.take().unwrap().join());
        (code, self.text())
    }
}

impl Drop for Terminal {
    /// Kills the run, in case the test failed.
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
