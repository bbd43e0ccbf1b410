//! Results on stdout, as tables for people or JSON for programs; failures on stderr.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::control::model::ErrorObject;
use crate::failure::Failure;

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
}

impl Output {
    /// Prints `value` as JSON, or else what `text` makes of it.
    pub fn show<T: Serialize + ?Sized>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let mut out = if self.json {
            serde_json::to_string_pretty(value)
                .map_err(|error| Failure::failed(format!("the result cannot be shown: {error}")))?
        } else {
            text(value)
        };
        if out.is_empty() {
            return Ok(());
        }
        out.push('\n');
        self.print(&out)
    }

    /// Prints one object of a stream as a line of JSON, or else `text`.
    pub fn line<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let mut out = if self.json {
            serde_json::to_string(value)
                .map_err(|error| Failure::failed(format!("the result cannot be shown: {error}")))?
        } else {
            text()
        };
        out.push('\n');
        self.print(&out)
    }

    fn print(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            // The reader has had enough (`| head`): nothing is wrong, and nobody is left to tell.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(Failure::failed(format!("cannot write to stdout: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Prints a failure to stderr.
    pub fn failure(self, failure: &Failure) {
        let text = if self.json {
            let object = ErrorObject {
                error: failure.clone(),
            };
            serde_json::to_string(&object).unwrap_or_else(|error| error.to_string())
        } else {
            match &failure.advice {
                Some(advice) => format!("ringfence: {}\n  {advice}", failure.message),
                None => format!("ringfence: {}", failure.message),
            }
        };
        // Without a stderr there is only the exit code.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// A table with `header`; the columns named in `right` are numbers.
pub fn table(
    header: &[&str],
    right: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    trimmed(&table)
}

/// Names and values below each other.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// A list of names, or a dash.
pub fn names(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(",")
    }
}

fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_have_no_trailing_blanks() {
        let rows = [("a", "1"), ("long-name", "12345")];
        let text = table(
            &["NAME", "SIZE", "STATE"],
            &[1],
            rows.map(|(name, size)| vec![name.to_owned(), size.to_owned(), "online".to_owned()]),
        );
        insta::assert_snapshot!(text, @r"
        NAME        SIZE  STATE
        a              1  online
        long-name  12345  online
        ");
        insta::assert_snapshot!(fields(&[("Name", "x".into()), ("Devices", names(&[]))]), @r"
        Name     x
        Devices  -
        ");
    }
}
