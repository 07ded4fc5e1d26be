//! What the benchmarked servers have in common, so that they differ in the guard alone.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::web::{self, ServiceConfig};

pub mod addresses;

/// The answer of every handler: with its headers about as long as an answer that a guard makes.
const BODY: &str = "hello, world\n";

/// A path whose quota is used up, where there is one.
pub const OVER: &str = "/over";

/// What a request head may take, as in `api`.
pub const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// The handler, at both paths that the load asks for.
pub fn handler(config: &mut ServiceConfig) {
    config.route("/", web::get().to(hello)).route(OVER, web::get().to(hello));
}

async fn hello() -> &'static str {
    BODY
}

/// A listener on a free port of this machine, and where it is.
///
/// # Errors
/// The operating system's.
pub fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
