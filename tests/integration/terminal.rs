//! A terminal for tests: a program runs in it, keys are typed, and all that could be seen on it is kept.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix_openpty::openpty;
use rustix_openpty::rustix::termios::{LocalModes, Winsize, tcgetattr};
use vt100::Parser;

use crate::support::{PATIENCE, output};

/// A terminal in which a command runs, and all that could be seen on it.
pub struct Terminal {
    child: Child,
    /// The side of the keyboard.
    keyboard: File,
    seen: Arc<Mutex<Vec<String>>>,
    /// Every byte that was written.
    raw: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<Parser>,
    /// How many screens there were when something was last typed.
    pressed: usize,
}

impl Terminal {
    /// Runs a command in a terminal of so many columns.
    pub fn run(columns: u16, mut command: Command) -> Terminal {
        let size = Winsize { ws_row: 30, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(None, Some(&size)).expect("a pseudo-terminal");
        let [stdin, stdout] = [(); 2].map(|()| pair.user.try_clone().expect("another descriptor"));
        let keyboard = File::from(pair.controller.try_clone().expect("another descriptor"));
        command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(pair.user));
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        command.env_remove("CI");
        let child = command.spawn().expect("the program starts");
        // The command keeps the terminal open as long as it lives.
        drop(command);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (mut controller, screens, written) = (File::from(pair.controller), Arc::clone(&seen), Arc::clone(&raw));
        let reader = std::thread::spawn(move || {
            let lines = |number| NonZero::new(number).expect("more than none");
            let mut terminal = Parser::new(lines(30), lines(columns), 0);
            let mut bytes = [0; 4096];
            // When nobody has the terminal any more, reading fails.
            while let Ok(number @ 1..) = controller.read(&mut bytes) {
                terminal.process(&bytes[..number]);
                written.lock().expect("nobody panics").extend(&bytes[..number]);
                screens.lock().expect("nobody panics").push(terminal.screen().contents());
            }
            terminal
        });
        Terminal { child, keyboard, seen, raw, reader, pressed: 0 }
    }

    /// Everything that was written until now, as text.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().expect("nobody panics")).into_owned()
    }

    /// Everything that the program wrote, when it has ended.
    pub fn raw_at_end(mut self) -> String {
        self.child.wait().expect("the program ends");
        self.reader.join().expect("the reader ends");
        String::from_utf8_lossy(&self.raw.lock().expect("nobody panics")).into_owned()
    }

    /// Types something.
    pub fn press(&mut self, keys: &str) {
        self.pressed = self.seen.lock().expect("nobody panics").len();
        self.keyboard.write_all(keys.as_bytes()).expect("it is typed");
    }

    /// Waits until something stands on the screen.
    pub fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.seen.lock().expect("nobody panics").iter().any(|screen| screen.contains(text)) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} in {:#?}", self.seen);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until something stands on the screen now, and nothing new has come for a moment: then a question is asked.
    pub fn asks(&self, text: &str) {
        let start = Instant::now();
        loop {
            let (number, last) = {
                let seen = self.seen.lock().expect("nobody panics");
                (seen.len(), seen.last().cloned().unwrap_or_default())
            };
            // What was answered before doesn't count.
            let open =
                last.rsplit_once('✔').map_or(last.as_str(), |(_, rest)| rest.split_once('\n').unwrap_or_default().1);
            if number > self.pressed && open.contains(text) {
                std::thread::sleep(Duration::from_millis(120));
                if self.seen.lock().expect("nobody panics").len() == number {
                    return;
                }
            }
            assert!(start.elapsed() < PATIENCE, "no {text:?} in {last}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Answers a question, as soon as it is asked.
    pub fn answer(&mut self, question: &str, keys: &str) {
        self.asks(question);
        self.press(keys);
    }

    /// Ends the program at once, without a word.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is there");
        let _ = self.child.wait();
    }

    /// Ctrl-C, as it arrives at the program.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// A signal.
    pub fn signal(&self, signal: &str) {
        let kill = output(Command::new("kill").args([signal, &self.child.id().to_string()]));
        assert_eq!(kill.code, 0, "{kill:?}");
    }

    /// The exit code, all screens, and what stays on the screen; the terminal has to be left as it was found.
    pub fn end(mut self) -> (i32, Vec<String>, String) {
        let status = self.child.wait().expect("the program ends");
        let terminal = self.reader.join().expect("the reader ends");
        let screen = terminal.screen();
        let modes = tcgetattr(&self.keyboard).expect("it is still a terminal").local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON), "keys are no longer shown: {modes:?}");
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        let contents = screen.contents();
        assert!(!contents.contains("\\u{1b}"), "a colour is printed as text: {contents}");
        assert_eq!(screen.cursor_position().1, 0, "the next prompt would not begin its line: {}", screen.contents());
        let seen = std::mem::take(&mut *self.seen.lock().expect("nobody panics"));
        (status.code().unwrap_or(-1), seen, screen.contents())
    }
}
