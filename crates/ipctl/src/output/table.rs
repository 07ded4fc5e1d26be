//! Aligned columns without lines, as other tools of the terminal write them.

use std::io::{self, Write};

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Width, presets,
};

use super::{Column, ColumnKind, bounded, colours};

/// The least that wrapped text gets, in characters.
const NARROWEST: u16 = 18;

/// The most of a cell that a terminal shows; the formats for programs show everything.
const LONGEST: usize = 400;

/// What a cell says beyond its words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tint {
    /// Nothing.
    None,
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Refused, or to be reviewed.
    Bad,
}

/// What standard output can show.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// In characters; `None` for a pipe, where a row is a line however long.
    width: Option<u16>,
    colours: bool,
}

impl Shape {
    pub(super) fn of_standard_output() -> Shape {
        let probe = comfy_table::Table::new();
        Shape { width: probe.width(), colours: colours() }
    }
}

/// A table that is written page by page; its columns never become narrower.
pub(super) struct Table {
    columns: &'static [Column],
    headers: bool,
    shape: Shape,
    widths: Vec<u16>,
}

impl Table {
    pub(super) fn new(columns: &'static [Column], headers: bool, shape: Shape) -> Table {
        Table { columns, headers, shape, widths: vec![0; columns.len()] }
    }

    pub(super) fn write(
        &mut self,
        out: &mut impl Write,
        rows: Vec<Vec<(String, Tint)>>,
    ) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        match self.shape.width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width)
            }
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        if self.shape.colours {
            table.enforce_styling();
        }
        if std::mem::take(&mut self.headers) {
            table.set_header(self.columns.iter().map(|column| self.header(column)));
        }
        for row in rows {
            table.add_row(row.into_iter().map(|cell| self.cell(cell)));
        }
        let widest = table.column_max_content_widths();
        for (width, widest) in self.widths.iter_mut().zip(widest) {
            *width = (*width).max(widest);
        }
        let last = self.columns.len() - 1;
        for (index, shown) in table.column_iter_mut().enumerate() {
            let column = &self.columns[index];
            shown.set_padding((0, if index == last { 0 } else { 2 }));
            if column.kind == ColumnKind::Number {
                shown.set_cell_alignment(CellAlignment::Right);
            }
            let padded = self.widths[index] + if index == last { 0 } else { 2 };
            shown.set_constraint(match column.kind {
                ColumnKind::Prose if self.shape.width.is_some() => {
                    ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST.min(padded)))
                }
                _ if index == last => ColumnConstraint::ContentWidth,
                _ => ColumnConstraint::Absolute(Width::Fixed(padded)),
            });
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn header(&self, column: &Column) -> Cell {
        let cell = Cell::new(column.name);
        if self.shape.colours { cell.add_attribute(Attribute::Bold) } else { cell }
    }

    fn cell(&self, (text, tint): (String, Tint)) -> Cell {
        let text = match self.shape.width {
            Some(_) => bounded(&text, LONGEST),
            None => text.replace('\n', "; "),
        };
        let cell = Cell::new(text);
        match (self.shape.colours, tint) {
            (false, _) | (_, Tint::None) => cell,
            (true, Tint::Good) => cell.fg(Color::Green),
            (true, Tint::Odd) => cell.fg(Color::Yellow),
            (true, Tint::Bad) => cell.fg(Color::Red),
        }
    }
}
