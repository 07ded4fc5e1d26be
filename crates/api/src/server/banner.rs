//! What a person sees when the service is up.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;

use ipwarden_core::context::Context;

/// Where the listeners are.
pub(super) struct Listening {
    pub(super) public: SocketAddr,
    pub(super) gate: Option<SocketAddr>,
    pub(super) grpc: Option<SocketAddr>,
    pub(super) control: SocketAddr,
}

/// Tells a person where to look. On stderr, as everything that is not data.
///
/// Whoever started this may have closed it; then nobody is told.
pub(super) fn announce(context: &Context, listening: &Listening) {
    let _nobody_listens = write_banner(&mut std::io::stderr().lock(), context, listening);
}

fn write_banner(
    out: &mut (impl Write + IsTerminal),
    context: &Context,
    listening: &Listening,
) -> std::io::Result<()> {
    let data_dir = std::path::absolute(&context.config.data_dir)
        .unwrap_or_else(|_| context.config.data_dir.clone());
    let size = if context.db.is_sqlite() { "embedded" } else { "fleet" };
    writeln!(out, "ipwarden {} ({size}) is up", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  public   {:<28} everything here passes the guard", url(listening.public))?;
    if let Some(gate) = listening.gate {
        writeln!(out, "  gate     {:<28} for your own proxies and bouncers", url(gate))?;
    }
    if let Some(grpc) = listening.grpc {
        writeln!(out, "  grpc     {:<28} for your own Envoy's check", url(grpc))?;
    }
    writeln!(out, "  control  {:<28} for operators: API, metrics, health", url(listening.control))?;
    writeln!(out, "  data     {}", data_dir.display())?;
    let key_file = data_dir.join(ipwarden_core::keys::ADMIN_KEY_FILE);
    match &context.first_admin_key {
        Some(path) => {
            writeln!(out, "  key      {} (the first admin key, just made)", path.display())?;
            if out.is_terminal()
                && let Ok(key) = std::fs::read_to_string(path)
            {
                writeln!(out, "           {}", key.trim())?;
            }
        }
        None if key_file.exists() => {
            writeln!(out, "  key      {} (the first admin key)", key_file.display())?;
        }
        None => writeln!(out, "  key      made elsewhere; `ipctl key list` shows which there are")?,
    }
    writeln!(out, "  try      curl -i {}/", url(listening.public))
}

/// The address as it can be clicked on: nobody connects to "any address".
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}
