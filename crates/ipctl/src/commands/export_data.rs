//! `ipctl export data`.

use std::io::{self, BufWriter, Write};

use ipwarden_core::stored::{self, Table};
use ipwarden_engine::network::Network;
use serde_json::{Value, json};

use crate::cli::ExportData;
use crate::failure::Failure;
use crate::invocation::Invocation;
use crate::output::{Data, Format};

pub(super) async fn run(given: Invocation, args: ExportData) -> Result<(), Failure> {
    let lines = match given.out.format() {
        Format::Table | Format::Json => false,
        Format::Jsonl => true,
        Format::Csv => {
            return Err(Failure::Usage(
                "tables of different columns have no common CSV; -o json or -o jsonl writes them"
                    .to_owned(),
            ));
        }
    };
    let opened = given.open().await?;
    let mut document = Document { out: BufWriter::new(Data), lines };
    document.begin(args.network, given.now)?;
    for table in Table::ALL {
        let mut written = 0;
        document.begin_table(table)?;
        stored::rows(&opened.db, table, args.network, |rows| {
            for row in rows {
                document.row(table, &row, written)?;
                written += 1;
            }
            Ok::<_, Failure>(document.out.flush()?)
        })
        .await?;
        document.end_table(written)?;
    }
    Ok(document.end()?)
}

/// One object with an array for each table; or one line for each row, which names its table.
struct Document {
    out: BufWriter<Data>,
    lines: bool,
}

impl Document {
    fn begin(&mut self, network: Network, now: chrono::DateTime<chrono::Utc>) -> io::Result<()> {
        if self.lines {
            return Ok(());
        }
        write!(self.out, "{{\n\"network\": {},\n\"exported_at\": {}", json!(network), json!(now))
    }

    fn begin_table(&mut self, table: Table) -> io::Result<()> {
        if self.lines {
            return Ok(());
        }
        write!(self.out, ",\n\"{}\": [", table.name())
    }

    fn row(&mut self, table: Table, row: &Value, written: usize) -> io::Result<()> {
        if self.lines {
            return writeln!(self.out, "{}", json!({ "table": table.name(), "row": row }));
        }
        let before = if written == 0 { "\n  " } else { ",\n  " };
        write!(self.out, "{before}{row}")
    }

    fn end_table(&mut self, written: usize) -> io::Result<()> {
        match (self.lines, written) {
            (true, _) => Ok(()),
            (false, 0) => write!(self.out, "]"),
            (false, _) => write!(self.out, "\n]"),
        }
    }

    fn end(mut self) -> io::Result<()> {
        if !self.lines {
            writeln!(self.out, "\n}}")?;
        }
        self.out.flush()
    }
}
