//! `ipctl man`.

use clap::CommandFactory;
use clap_mangen::Man as Page;

use crate::cli::{Cli, Man};
use crate::failure::Failure;
use crate::invocation::{Invocation, tell};

pub(super) fn run(given: Invocation, args: Man) -> Result<(), Failure> {
    let mut command = Cli::command();
    if let Some(dir) = args.dir {
        std::fs::create_dir_all(&dir)?;
        clap_mangen::generate_to(command, &dir)?;
        tell(format!("the pages are in {}", dir.display()));
        return Ok(());
    }
    command.build();
    let page = match &args.command {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name).cloned();
            let unknown =
                || Failure::Usage(format!("there is no command `{name}`; see ipctl --help"));
            found.ok_or_else(unknown)?
        }
    };
    let mut roff = Vec::new();
    let title = page.get_display_name().unwrap_or("ipctl").to_owned();
    Page::new(page).title(title).render(&mut roff)?;
    Ok(given.out.text(&String::from_utf8_lossy(&roff))?)
}
