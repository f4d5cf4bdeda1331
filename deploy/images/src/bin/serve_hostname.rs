//! `serve-hostname`: answers every HTTP request (and every UDP datagram) on port 9376 with the name
//! of the host, which in a pod is the pod's name. The sample Service is checked with it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

const PORT: u16 = 9376;
/// A client that sends nothing for this long is dropped, so that idle connections cannot pile up.
const IDLE: Duration = Duration::from_secs(30);
/// More header lines than any HTTP client sends.
const MAX_HEADER_LINES: usize = 256;

fn main() -> std::io::Result<()> {
    let hostname = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    end_on_signal();
    // Dual stack where the kernel has IPv6, else IPv4 alone.
    let listener = TcpListener::bind(("::", PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))?;
    let datagrams = UdpSocket::bind(("::", PORT)).or_else(|_| UdpSocket::bind(("0.0.0.0", PORT)))?;
    let name = hostname.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = datagrams.recv_from(&mut buffer) {
            if let Err(error) = datagrams.send_to(name.as_bytes(), from) {
                eprintln!("udp {from}: {error}");
            }
        }
    });
    println!("serving {hostname} on port {PORT}");
    for stream in listener.incoming() {
        let name = hostname.clone();
        match stream {
            Ok(stream) => {
                std::thread::spawn(move || {
                    if let Err(error) = answer(stream, &name) {
                        eprintln!("http: {error}");
                    }
                });
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
    Ok(())
}

/// As PID 1 of its container the process gets no default action for SIGTERM: it must ask for it.
fn end_on_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().expect("a process may always block its own signals");
    std::thread::spawn(move || {
        let _ = signals.wait();
        std::process::exit(0);
    });
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut close = false;
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        close |= line.trim_end().ends_with("HTTP/1.0");
        for _ in 0..MAX_HEADER_LINES {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            close |= header == "connection: close";
            if header.is_empty() {
                break;
            }
        }
        let connection = if close { "close" } else { "keep-alive" };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{name}",
            name.len()
        )?;
        if close {
            return Ok(());
        }
    }
}
