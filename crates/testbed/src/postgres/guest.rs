//! A connection that somebody else holds, and does nothing with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;

/// One of the server's connections, taken for as long as this lives.
#[derive(Debug)]
pub struct Guest {
    _stream: TcpStream,
}

/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 3 << 16;

impl Guest {
    /// `None` if the server takes nobody in.
    pub(super) fn enter(address: &str, user: &str) -> anyhow::Result<Option<Guest>> {
        let mut stream = TcpStream::connect(address).context("PostgreSQL does not listen")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let parameters = format!("user\0{user}\0database\0postgres\0\0");
        let length = u32::try_from(8 + parameters.len())?;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&PROTOCOL.to_be_bytes())?;
        stream.write_all(parameters.as_bytes())?;
        loop {
            let mut head = [0; 5];
            stream.read_exact(&mut head).context("PostgreSQL does not answer")?;
            let [kind, length @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes(length))?.saturating_sub(4);
            stream.read_exact(&mut vec![0; length])?;
            match kind {
                // Who comes is told that he is welcome, and only then that there is no room.
                b'E' => return Ok(None),
                // Ready for its statements.
                b'Z' => return Ok(Some(Guest { _stream: stream })),
                _ => {}
            }
        }
    }
}
