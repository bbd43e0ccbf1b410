//! Medians, and the one table that the bench prints.

use std::fmt::Write;

/// A bar of the project beside a measured ratio or value. The bench only shows it: a shared machine decides nothing.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    /// Nothing was promised.
    None,
    /// The ratio to the other target is to be at least this.
    RatioAtLeast(f64),
    /// The ratio to the other target is to be at most this.
    RatioAtMost(f64),
    /// The value itself is to be at most this.
    AtMost(f64),
    /// The value is to be at most so many times the limit beside it.
    TimesLimit(f64),
}

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured, with its unit.
    pub measure: String,
    /// ringfence's values, run by run.
    pub ours: Vec<f64>,
    /// The other target's, in the same order.
    pub theirs: Vec<f64>,
    /// What nothing could beat: the canned responder, or plain writes and flushes. Of mirrors: two plain writes by the thread
    /// that asks, one after the other, which a hanging file would stop.
    pub limit: Vec<f64>,
    /// The project's bar.
    pub bar: Bar,
}

impl Row {
    /// The median of the ratios of runs made one after the other.
    fn ratio(&self) -> Option<f64> {
        let ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.theirs)
            .filter(|(_, theirs)| **theirs > 0.0)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        median(&ratios)
    }

    fn bar(&self) -> String {
        let (text, met) = match self.bar {
            Bar::None => return String::new(),
            Bar::RatioAtLeast(bar) => (format!("≥ {bar}x"), self.ratio().map(|r| r >= bar)),
            Bar::RatioAtMost(bar) => (format!("≤ {bar}x"), self.ratio().map(|r| r <= bar)),
            Bar::AtMost(bar) => (format!("≤ {bar}"), median(&self.ours).map(|v| v <= bar)),
            Bar::TimesLimit(bar) => (
                format!("≤ {bar}x limit"),
                median(&self.ours)
                    .zip(median(&self.limit))
                    .map(|(ours, limit)| ours <= bar * limit),
            ),
        };
        match met {
            Some(true) => format!("{text} met"),
            Some(false) => format!("{text} **missed**"),
            None => text,
        }
    }
}

/// The table in Markdown.
pub fn render(rows: &[Row], other: &str) -> String {
    let mut text = format!(
        "| measure | ringfence | {other} | ratio | bar | limit |\n| --- | ---: | ---: | ---: | --- | ---: |\n"
    );
    for row in rows {
        let ratio = row.ratio().map_or_else(String::new, |r| format!("{r:.2}x"));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {ratio} | {} | {} |",
            row.measure,
            number(median(&row.ours)),
            number(median(&row.theirs)),
            row.bar(),
            number(median(&row.limit)),
        );
    }
    text
}

/// The middle value, or the mean of the two middle ones.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 1000.0 => {
            let digits = format!("{value:.0}");
            let split = digits.len() - 3;
            format!("{},{}", &digits[..split], &digits[split..])
        }
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_row_shows_ratio_of_neighbouring_runs_and_bar() {
        let row = Row {
            measure: "reads/s".into(),
            ours: vec![30_000.0, 10_000.0, 31_000.0],
            theirs: vec![10_000.0, 5_000.0, 10_000.0],
            limit: vec![60_000.0],
            bar: Bar::RatioAtLeast(2.5),
        };
        let text = render(&[row], "tgt");
        assert!(
            text.ends_with("| reads/s | 30,000 | 10,000 | 3.00x | ≥ 2.5x met | 60,000 |\n"),
            "{text}"
        );
    }

    #[test]
    fn a_missed_bar_is_marked() {
        let row = Row {
            measure: "PREEMPT".into(),
            ours: vec![7.0],
            theirs: Vec::new(),
            limit: vec![2.0],
            bar: Bar::TimesLimit(3.0),
        };
        assert_eq!(row.bar(), "≤ 3x limit **missed**");
        assert_eq!(row.ratio(), None);
    }
}
