//! Data on standard output: a table for people; JSON, JSON lines and CSV for programs.
//!
//! A listing is written page by page, so that a million rows need no more memory than a thousand.
//! Colours and wrapping are for terminals only; into a pipe every row is one line. Times are
//! RFC 3339 in UTC in the formats for programs; in tables they are those of the operator (`TZ`), with their zone.

mod csv;
mod table;
mod text;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::table::Tint;
use self::table::{Shape, Table};
pub(crate) use self::text::{bounded, clean, count, ends, minute, place, time, until};
use crate::invocation::tell;
use crate::progress;

/// Standard output. Its first byte ends what shows that the command is at work.
pub(crate) struct Data;

impl Write for Data {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::spoken();
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One document: an array for a listing
    Json,
    /// One object a line
    Jsonl,
    /// Comma-separated values with a header line
    Csv,
}

/// What programs read: an object, and its fields in CSV.
pub(crate) trait Object: Serialize {
    /// The fields of its JSON object that CSV shows, in order.
    const FIELDS: &'static [&'static str];
}

/// A row of a listing, which people read as a table.
pub(crate) trait Row: Object {
    /// The columns of its table.
    const COLUMNS: &'static [Column];
    /// One cell for each of the columns; line feeds only where a person is helped by them.
    fn cells(&self, now: DateTime<Utc>) -> Vec<(String, Tint)>;
}

/// A column of a table.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: ColumnKind,
}

/// How a column is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    /// As wide as its cells.
    Plain,
    /// As wide as its cells, which are numbers.
    Number,
    /// Wrapped on a terminal that is too narrow.
    Prose,
    /// Cut on a terminal that is too narrow; at most one column of a table.
    Cut,
}

/// Standard output, in the format that was asked for.
pub(crate) struct Output {
    format: Format,
    headers: bool,
    shape: Shape,
    now: DateTime<Utc>,
}

impl Output {
    pub(crate) fn new(format: Format, headers: bool, now: DateTime<Utc>) -> Output {
        Output { format, headers, shape: Shape::of_standard_output(), now }
    }

    /// The same in another format.
    pub(crate) fn formatted(&self, format: Format) -> Output {
        Output { format, ..*self }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether people read it, rather than programs.
    pub(crate) fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// A listing to be written page by page.
    pub(crate) fn listing<R: Row>(&self) -> Listing<R> {
        let table = Table::new(R::COLUMNS, self.headers, self.shape);
        Listing {
            table: self.is_for_people().then_some(table),
            now: self.now,
            objects: self.objects(),
        }
    }

    /// A whole listing at once; `nothing` is told to a person instead of an empty table.
    pub(crate) fn rows<R: Row>(&self, rows: &[R], nothing: &str) -> io::Result<()> {
        let mut listing = self.listing();
        listing.page(rows)?;
        listing.end(nothing)
    }

    /// One object: its sentences for people, itself for programs.
    pub(crate) fn one<O: Object>(
        &self,
        object: &O,
        sentences: impl FnOnce() -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::Table => self.text(&sentences()),
            Format::Json | Format::Jsonl => self.text(&serde_json::to_string(object)?),
            Format::Csv => self.each(std::slice::from_ref(object), |_| String::new()),
        }
    }

    /// Several objects: a sentence for each for people, themselves for programs.
    pub(crate) fn each<O: Object>(
        &self,
        objects: &[O],
        sentence: impl Fn(&O) -> String,
    ) -> io::Result<()> {
        if self.is_for_people() {
            return self.text(&objects.iter().map(sentence).collect::<Vec<_>>().join("\n"));
        }
        let mut written = self.objects();
        written.write(objects)?;
        written.end()
    }

    fn objects<O>(&self) -> Objects<O> {
        Objects {
            format: self.format,
            headers: self.headers,
            out: BufWriter::new(Data),
            written: 0,
            object: PhantomData,
        }
    }

    /// Text as it is, with a line feed at its end; nothing for no text.
    pub(crate) fn text(&self, text: &str) -> io::Result<()> {
        let mut out = Data;
        if !text.is_empty() {
            out.write_all(text.trim_end_matches('\n').as_bytes())?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

/// A listing that is being written.
pub(crate) struct Listing<R> {
    /// For people.
    table: Option<Table>,
    now: DateTime<Utc>,
    /// For programs.
    objects: Objects<R>,
}

impl<R: Row> Listing<R> {
    /// Writes some rows, and lets them be seen.
    pub(crate) fn page(&mut self, rows: &[R]) -> io::Result<()> {
        let Some(table) = &mut self.table else { return self.objects.write(rows) };
        let cells = rows.iter().map(|row| row.cells(self.now)).collect();
        table.write(&mut self.objects.out, cells)?;
        self.objects.written += rows.len();
        self.objects.out.flush()
    }

    /// Ends the document; a person is told `nothing` instead of an empty table.
    pub(crate) fn end(self, nothing: &str) -> io::Result<()> {
        if self.table.is_some() && self.objects.written == 0 {
            tell(nothing);
        }
        self.objects.end()
    }
}

/// Objects on their way out, in one of the formats for programs.
struct Objects<O> {
    format: Format,
    headers: bool,
    out: BufWriter<Data>,
    written: usize,
    object: PhantomData<O>,
}

impl<O: Object> Objects<O> {
    fn write(&mut self, objects: &[O]) -> io::Result<()> {
        if self.format == Format::Csv {
            csv::write(&mut self.out, objects, self.headers && self.written == 0)?;
        }
        for (object, index) in objects.iter().zip(self.written..) {
            match self.format {
                Format::Json => {
                    self.out.write_all(if index == 0 { b"[\n  " } else { b",\n  " })?;
                    serde_json::to_writer(&mut self.out, object)?;
                }
                Format::Jsonl => {
                    serde_json::to_writer(&mut self.out, object)?;
                    self.out.write_all(b"\n")?;
                }
                Format::Csv | Format::Table => break,
            }
        }
        self.written += objects.len();
        self.out.flush()
    }

    fn end(mut self) -> io::Result<()> {
        match (self.format, self.written) {
            (Format::Json, 0) => self.out.write_all(b"[]\n")?,
            (Format::Json, _) => self.out.write_all(b"\n]\n")?,
            (Format::Csv, 0) => csv::write::<O>(&mut self.out, &[], self.headers)?,
            _ => {}
        }
        self.out.flush()
    }
}

/// Whether colours are welcome on standard output (no-color.org).
fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !refused && !dumb
}
