//! Aligned columns without lines, as other tools of the terminal write them.

use std::io::{self, Write};

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Width, presets,
};

use super::{Column, ColumnKind, bounded, colours};

/// Between two columns, in characters.
const GAP: u16 = 2;

/// The least that long text gets, in characters.
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
        mut rows: Vec<Vec<(String, Tint)>>,
    ) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for (text, _) in rows.iter_mut().flatten() {
            *text = match self.shape.width {
                Some(_) => bounded(text, LONGEST),
                None => text.replace('\n', "; "),
            };
        }
        self.widen(&rows);
        self.cut(&mut rows);
        for line in self.laid_out(rows).lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Makes the columns as wide as these rows need.
    fn widen(&mut self, rows: &[Vec<(String, Tint)>]) {
        for (index, column) in self.columns.iter().enumerate() {
            let name = if self.headers { column.name } else { "" };
            let cells = rows.iter().map(|row| row[index].0.as_str());
            let lines = cells.flat_map(str::lines).chain([name]);
            let widest = lines.map(|line| line.chars().count()).max().unwrap_or(0);
            let widest = u16::try_from(widest).unwrap_or(u16::MAX);
            self.widths[index] = self.widths[index].max(widest);
        }
    }

    /// Shortens what is too long for the rest of a terminal's line.
    fn cut(&mut self, rows: &mut [Vec<(String, Tint)>]) {
        let Some(width) = self.shape.width else { return };
        let Some(index) = self.columns.iter().position(|column| column.kind == ColumnKind::Cut)
        else {
            return;
        };
        let all: u16 = self.widths.iter().map(|width| width.saturating_add(GAP)).sum();
        let others = all - self.widths[index] - GAP;
        let left = width.saturating_sub(others).max(NARROWEST);
        self.widths[index] = self.widths[index].min(left);
        for row in rows {
            let lines = row[index].0.lines().map(|line| match line.chars().count() {
                short if short <= usize::from(left) => line.to_owned(),
                _ => bounded(line, usize::from(left) - 1),
            });
            row[index].0 = lines.collect::<Vec<_>>().join("\n");
        }
    }

    fn laid_out(&mut self, rows: Vec<Vec<(String, Tint)>>) -> comfy_table::Table {
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
        let last = self.columns.len() - 1;
        for (index, shown) in table.column_iter_mut().enumerate() {
            let column = &self.columns[index];
            let gap = if index == last { 0 } else { GAP };
            shown.set_padding((0, gap));
            if column.kind == ColumnKind::Number {
                shown.set_cell_alignment(CellAlignment::Right);
            }
            let padded = self.widths[index] + gap;
            shown.set_constraint(match column.kind {
                ColumnKind::Prose if self.shape.width.is_some() => {
                    ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST.min(padded)))
                }
                _ if index == last => ColumnConstraint::ContentWidth,
                _ => ColumnConstraint::Absolute(Width::Fixed(padded)),
            });
        }
        table
    }

    fn header(&self, column: &Column) -> Cell {
        let cell = Cell::new(column.name);
        if self.shape.colours { cell.add_attribute(Attribute::Bold) } else { cell }
    }

    fn cell(&self, (text, tint): (String, Tint)) -> Cell {
        let cell = Cell::new(text);
        match (self.shape.colours, tint) {
            (false, _) | (_, Tint::None) => cell,
            (true, Tint::Good) => cell.fg(Color::Green),
            (true, Tint::Odd) => cell.fg(Color::Yellow),
            (true, Tint::Bad) => cell.fg(Color::Red),
        }
    }
}
