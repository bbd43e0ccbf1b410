//! The access table as text, for documentation and for people who check it.

use std::fmt::Write as _;

use super::{Column, Row, TABLE};

/// Short heading of a column.
const fn heading(column: Column) -> &'static str {
    match column {
        Column::Open => "open",
        Column::OpenRegistered => "open, reg",
        Column::Holder => "holder",
        Column::RegistrantsOnly => "RO, reg",
        Column::WriteExclusiveRegistered => "WE, reg",
        Column::ExclusiveAccessRegistered => "EA, reg",
        Column::WriteExclusive => "WE",
        Column::ExclusiveAccess => "EA",
        Column::WriteExclusiveRegistrants => "WE-RR",
        Column::ExclusiveAccessRegistrants => "EA-RR",
        Column::Scsi2Holder => "S2, holder",
        Column::Scsi2Other => "S2",
        Column::InformationLost => "lost",
        Column::NotReady => "unready",
        Column::Fenced => "fenced",
        Column::Unconfirmed => "unconfirmed",
    }
}

/// The whole table as Markdown: a row for each command, a column for each [`Column`], `A` for allowed and a dot for
/// refused, and `w` in the last column for commands that write the medium.
pub fn render_markdown() -> String {
    let name_width = TABLE
        .iter()
        .map(|row| row.to_string().len())
        .max()
        .unwrap_or(0);
    let mut text = format!("| {:name_width$} |", "command");
    for column in Column::ALL {
        let _ = write!(text, " {} |", heading(column));
    }
    let _ = write!(text, " w |\n|-{:-<name_width$}-|", "");
    for column in Column::ALL {
        let _ = write!(text, ":{:-<width$}:|", "", width = heading(column).len());
    }
    text.push_str(":-:|\n");
    for row in TABLE {
        let _ = write!(text, "| {:name_width$} |", row.to_string());
        for column in Column::ALL {
            let _ = write!(
                text,
                " {:^width$} |",
                mark(row, column),
                width = heading(column).len()
            );
        }
        let _ = writeln!(text, " {} |", if row.writes_medium { "w" } else { "." });
    }
    text
}

const fn mark(row: &Row, column: Column) -> &'static str {
    if row.permits(column) { "A" } else { "." }
}

/// One line of the table for the given columns, `A` and `.` in their order: for tables over reservation types and
/// roles.
pub fn render_role(row: &Row, columns: &[Column]) -> String {
    columns.iter().map(|&column| mark(row, column)).collect()
}
