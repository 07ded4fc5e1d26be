//! A backend that answers everything, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use reqwest::Method;

/// What it answers.
pub(crate) const BODY: &str = "hello from the backend\n";

type Asked = Arc<Mutex<Vec<(Method, String, usize)>>>;

/// It listens until the test's process ends.
pub(crate) struct Backend {
    address: SocketAddr,
    asked: Asked,
}

impl Backend {
    pub(crate) fn start() -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
        let all = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = all.clone();
                std::thread::spawn(move || serve(stream, &asked));
            }
        });
        Backend { address, asked }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests came.
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Method, target and length of the body of the last one.
    pub(crate) fn last(&self) -> (Method, String, usize) {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

/// Until the proxy closes the connection, or it breaks.
fn serve(stream: TcpStream, asked: &Asked) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let request = line(&mut reader)?;
        let mut words = request.split(' ');
        let (method, target) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let (mut length, mut chunked) = (0, false);
        loop {
            let field = line(&mut reader)?.to_ascii_lowercase();
            match field.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse().ok()?,
                Some(("transfer-encoding", _)) => chunked = true,
                Some(_) => {}
            }
        }
        if chunked {
            length = read_chunks(&mut reader)?;
        } else {
            reader.read_exact(&mut vec![0; length]).ok()?;
        }
        let answer = match target.as_str() {
            "/forbidden" => ("403 Forbidden", "forbidden by the backend\n"),
            _ => ("200 OK", BODY),
        };
        asked.lock().unwrap().push((method, target, length));
        let (status, body) = answer;
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        (&stream).write_all(text.as_bytes()).ok()?;
    }
}

fn read_chunks(reader: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut length = 0;
    loop {
        let size = usize::from_str_radix(&line(reader)?, 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        length += size;
        if size == 0 {
            return Some(length);
        }
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = reader.read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}
