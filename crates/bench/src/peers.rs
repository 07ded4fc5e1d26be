//! The peers, configured as their documentation recommends.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use ipwarden_bench::addresses;
use ipwarden_testbed::{PostgresServer, RedisServer};

use crate::server::{Server, free_address};

/// nginx: addresses from the header, a list of networks in `geo`, `limit_req`, an access log.
///
/// "In case of a lot of rules, the use of the ngx_http_geo_module module variables is preferable", says
/// the documentation of `deny`. The log is buffered, which a kill would cost records. The answer is the
/// smallest that nginx can make by itself, so that nothing but its own checks is measured.
pub(crate) fn nginx(
    directory: &Path,
    blocked: usize,
    rate: &str,
    burst: u32,
) -> anyhow::Result<Server> {
    let place = directory.join(format!("nginx-{burst}"));
    std::fs::create_dir_all(&place)?;
    let mut networks = String::from("default 0;\n");
    let mut seen = std::collections::HashSet::new();
    for network in addresses::blocked(blocked).into_iter().filter(|network| seen.insert(*network)) {
        writeln!(networks, "{}/{} 1;", network.address(), network.prefix())?;
    }
    std::fs::write(place.join("blocked.conf"), networks)?;
    let address = free_address()?;
    let place_text = place.display();
    let limit = match burst {
        0 => "limit_req zone=clients;".to_owned(),
        burst => format!("limit_req zone=clients burst={burst} nodelay;"),
    };
    let configuration = format!(
        "daemon off;\nuser {user};\nworker_processes 1;\npid {place_text}/nginx.pid;\n\
         error_log {place_text}/error.log crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
           keepalive_requests 1000000000;\n\
           client_body_temp_path {place_text}/body; proxy_temp_path {place_text}/proxy;\n\
           fastcgi_temp_path {place_text}/fastcgi; uwsgi_temp_path {place_text}/uwsgi;\n\
           scgi_temp_path {place_text}/scgi;\n\
           set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For;\n\
           geo $blocked {{ include {place_text}/blocked.conf; }}\n\
           limit_req_zone $binary_remote_addr zone=clients:64m rate={rate};\n\
           limit_req_status 429;\n\
           access_log {place_text}/access.log combined buffer=64k flush=1s;\n\
           server {{\n\
             listen {address};\n\
             location / {{\n\
               if ($blocked) {{ return 403; }}\n\
               {limit}\n\
               empty_gif;\n\
             }}\n\
           }}\n\
         }}\n",
        user = user()?,
    );
    let file = place.join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&place).arg("-e").arg(place.join("error.log")).arg("-c").arg(&file);
    Server::at(command, address, Vec::new()).context("nginx is needed: `apt-get install nginx`")
}

/// Django behind gunicorn: two workers per core and one more, threads that keep connections alive.
pub(crate) fn django(
    directory: &Path,
    postgres: &PostgresServer,
    database_url: &str,
    redis: &RedisServer,
) -> anyhow::Result<Server> {
    let programs = virtual_environment()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("django");
    let command_of = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command
            .current_dir(&source)
            .env("DATABASE_URL", database_url)
            .env("REDIS_URL", redis.url())
            .env("DJANGO_SETTINGS_MODULE", "settings")
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let mut tables = command_of("django-admin");
    tables.args(["migrate", "--run-syncdb", "--verbosity", "0", "--pythonpath", "."]);
    if !tables.status()?.success() {
        bail!("Django could not make its tables");
    }
    let address = free_address()?;
    let mut command = command_of("gunicorn");
    command.args(["--workers", "3", "--worker-class", "gthread", "--threads", "4"]);
    command.args(["--worker-tmp-dir", "/dev/shm", "--log-level", "error"]);
    command.args(["--bind", &address.to_string(), "wsgi:application"]);
    command.stderr(std::fs::File::create(directory.join("gunicorn.log"))?);
    let others = [postgres.pid(), redis.pid()].into_iter().flatten().collect();
    Server::at(command, address, others)
}

/// The programs of a virtual environment with the packages that `requirements.txt` names.
fn virtual_environment() -> anyhow::Result<PathBuf> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("django/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let place = crate::working_directory()?.join("venv");
    let done = place.join("requirements.txt");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(place.join("bin"));
    }
    let run = |command: &mut Command| -> anyhow::Result<()> {
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    run(Command::new(place.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&requirements))?;
    std::fs::write(done, wanted)?;
    Ok(place.join("bin"))
}

fn user() -> anyhow::Result<String> {
    let output = Command::new("id").arg("-un").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
