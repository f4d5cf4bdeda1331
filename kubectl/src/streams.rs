//! Where a command reads and writes: the process's streams, or buffers in tests.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Arc, Mutex};

/// A shared sink. Writing to a closed pipe ends the program quietly, as every filter does.
#[derive(Clone)]
pub struct Output(Arc<Mutex<Box<dyn Write + Send>>>);

impl Output {
    /// Wraps a writer.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Output(Arc::new(Mutex::new(Box::new(writer))))
    }

    /// Writes a text as it is.
    pub fn text(&self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes a text and a newline.
    pub fn line(&self, text: &str) {
        self.bytes(format!("{text}\n").as_bytes());
    }

    /// Writes bytes and flushes.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut writer = self.0.lock().expect("never poisoned");
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            std::process::exit(141);
        }
    }
}

/// The three streams of a command.
pub struct Streams {
    /// Standard output.
    pub out: Output,
    /// Standard error.
    pub err: Output,
    /// Standard input.
    pub stdin: RefCell<Box<dyn Read + Send>>,
    /// Whether standard output is a terminal.
    pub out_is_terminal: bool,
    /// Whether standard input is a terminal.
    pub in_is_terminal: bool,
}

impl Streams {
    /// The process's own streams.
    pub fn process() -> Self {
        Streams {
            out: Output::new(io::stdout()),
            err: Output::new(io::stderr()),
            stdin: RefCell::new(Box::new(io::stdin())),
            out_is_terminal: io::stdout().is_terminal(),
            in_is_terminal: io::stdin().is_terminal(),
        }
    }

    /// Everything on standard input.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_stdin(&self) -> io::Result<String> {
        let mut text = String::new();
        self.stdin.borrow_mut().read_to_string(&mut text)?;
        Ok(text)
    }
}
