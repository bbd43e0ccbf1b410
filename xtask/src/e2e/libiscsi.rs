//! libiscsi's conformance suite. None of its tests may fail; those that skip are listed in
//! `tests/libiscsi-skips.txt`, and a skip that is not in the list is a failure.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::context::Context;
use crate::process::{command, finish, tail};
use crate::targets::Target;
use crate::targets::layout::Layout;

const LIMIT: Duration = Duration::from_secs(600);
const SIZE_MIB: u32 = 128;
/// With fewer tests than this the suite has not run: libiscsi 1.19 has 230.
const TESTS_AT_LEAST: usize = 200;

/// What the whole suite says of its test for write-protected disks, which has a run of its own.
const READ_ONLY_SKIP: &str =
    "ReadOnly.ReadOnlySBC: Logical unit is not write-protected. Skipping test.";

/// What a run of the suite said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Tests run.
    tests: usize,
    /// `Suite.Test` of each that failed.
    failed: Vec<String>,
    /// `Suite.Test: reason` of each that skipped something.
    skipped: BTreeSet<String>,
}

/// The whole suite with two portals on a volume of this block size.
///
/// # Errors
/// When a test fails, or skips without being in the list.
pub fn run(context: &Context, block_size_bytes: u32) -> Result<String> {
    conformance(context, Layout::Linear, block_size_bytes)
}

/// The suite on every layout that is not linear, side by side: most of the time it sleeps.
///
/// # Errors
/// As [`run`].
pub fn run_layouts(context: &Context) -> Result<String> {
    const LAYOUTS: [(Layout, u32); 3] = [
        (Layout::Striped, 512),
        (Layout::Mirrored, 4096),
        (Layout::StripedMirror, 512),
    ];
    context.ringfence()?;
    let mut results = Vec::new();
    std::thread::scope(|scope| {
        let runs = LAYOUTS.map(|(layout, block_size_bytes)| {
            scope.spawn(move || conformance(context, layout, block_size_bytes))
        });
        for run in runs {
            results.push(match run.join() {
                Ok(result) => result,
                Err(_) => Err(anyhow::anyhow!("the thread of a run panicked")),
            });
        }
    });
    let (mut words, mut failed) = (Vec::new(), Vec::new());
    for ((layout, _), result) in LAYOUTS.iter().zip(results) {
        match result {
            Ok(text) => words.push(format!("{}: {text}", layout.name())),
            Err(error) => failed.push(format!("{}: {error:#}", layout.name())),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(words.join("; "))
}

fn conformance(context: &Context, layout: Layout, block_size_bytes: u32) -> Result<String> {
    let folder = context.folder(&format!("libiscsi-{}-{block_size_bytes}", layout.name()))?;
    // The run with large blocks is also the one of the fall-back where io_uring is forbidden.
    let io = (block_size_bytes == 4096).then_some("epoll");
    let mut target = context.start_target_on(&folder, 2, layout, io)?;
    let lun = target.create_volume("suite", SIZE_MIB, block_size_bytes)?;
    let report = run_suite(target.as_ref(), lun, &folder);
    target.check_running()?;
    let mut report = report?;
    // With two portals Sanitize.Reservations leaves the volume reserved by its second one (see the faults).
    if block_size_bytes == 512 {
        let sanitize = run_part(target.as_ref(), lun, &folder, "ALL.Sanitize")?;
        ensure!(
            sanitize.tests > 8 && sanitize.failed.is_empty(),
            "with one portal: {sanitize:?}"
        );
    }
    // The one suite for disks that are write-protected, with a grant that makes this one so.
    target.make_read_only("suite")?;
    let read_only = run_part(target.as_ref(), lun, &folder, "ALL.ReadOnly")?;
    ensure!(
        read_only.tests == 1 && read_only.failed.is_empty() && read_only.skipped.is_empty(),
        "on a volume granted ro: {read_only:?}"
    );
    report.skipped.remove(READ_ONLY_SKIP);
    let known = known_lines(&context.repository, "libiscsi-skips.txt", block_size_bytes)?;
    let faulty = known_lines(&context.repository, "libiscsi-faults.txt", block_size_bytes)?;
    report.failed.retain(|test| !faulty.contains(test));
    let grown: Vec<&String> = report
        .skipped
        .iter()
        .filter(|skip| !known.contains(*skip))
        .collect();
    if !report.failed.is_empty() || !grown.is_empty() {
        bail!(
            "{} tests, {} failed: {:#?}\nskipped but not in tests/libiscsi-skips.txt: {grown:#?}\n{}",
            report.tests,
            report.failed.len(),
            report.failed,
            target.log_tail()
        );
    }
    Ok(format!(
        "{} tests, none failed, {} skips all listed",
        report.tests,
        report.skipped.len()
    ))
}

/// Runs a part of the suite with one portal.
fn run_part(target: &dyn Target, lun: u16, folder: &Path, part: &str) -> Result<Report> {
    let mut suite = command(
        "iscsi-test-cu",
        [
            "--dataloss",
            "--allow-sanitize",
            &format!("--test={part}"),
            &target.url(0, lun),
        ],
    );
    suite.current_dir(folder);
    parse(&finish(&mut suite, LIMIT)?.stdout)
}

fn run_suite(target: &dyn Target, lun: u16, folder: &Path) -> Result<Report> {
    let mut suite = command(
        "iscsi-test-cu",
        [
            "--dataloss",
            "--allow-sanitize",
            "--test=ALL",
            &target.url(0, lun),
            &target.url(1, lun),
        ],
    );
    suite.current_dir(folder);
    let finished = finish(&mut suite, LIMIT)?;
    std::fs::write(folder.join("iscsi-test-cu.log"), finished.text())?;
    let report = parse(&finished.stdout).with_context(|| tail(&finished.text(), 30))?;
    ensure!(
        report.tests >= TESTS_AT_LEAST,
        "only {} tests ran; the log ends with\n{}",
        report.tests,
        tail(&finished.text(), 30)
    );
    Ok(report)
}

/// Reads the suite's own listing: `Suite: S`, `  Test: T ...` and, until the next of these, what the test said. The
/// totals come from its summary, and must be the same.
fn parse(text: &str) -> Result<Report> {
    let mut report = Report::default();
    let (mut suite, mut test) = (String::new(), String::new());
    let mut total = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name.trim().to_owned();
            continue;
        }
        let mut rest = line.trim();
        if let Some((name, after)) = rest
            .strip_prefix("Test: ")
            .and_then(|rest| rest.split_once(" ..."))
        {
            test = format!("{suite}.{}", name.trim());
            rest = after.trim();
            report.tests += 1;
        }
        if rest.starts_with("FAILED") && report.failed.last() != Some(&test) {
            report.failed.push(test.clone());
        }
        if let Some((_, reason)) = rest.split_once("[SKIPPED]") {
            report.skipped.insert(format!("{test}: {}", reason.trim()));
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let ["tests", _, ran, _, failed, ..] = words[..] {
            total = Some((ran.parse::<usize>()?, failed.parse::<usize>()?));
        }
    }
    let (ran, failed) = total.context("the suite printed no summary")?;
    ensure!(
        (ran, failed) == (report.tests, report.failed.len()),
        "the summary says {ran} tests and {failed} failed, the listing {} and {:?}",
        report.tests,
        report.failed
    );
    Ok(report)
}

/// Lines that begin with a block size hold for that one only.
fn known_lines(repository: &Path, file: &str, block_size_bytes: u32) -> Result<BTreeSet<String>> {
    let prefix = format!("{block_size_bytes}: ");
    let text = std::fs::read_to_string(repository.join("tests").join(file))?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.strip_prefix(&prefix).unwrap_or(line).to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "Suite: GetLBAStatus\n  Test: Simple ...passed\n  Test: BeyondEol ...    [FAILED] why\nFAILED\n    \
        1. test_get.c:38  - CU_ASSERT_EQUAL(_r,0)\nSuite: NoMedia\n  Test: NoMediaSBC ...    [SKIPPED] Not removable. Skipping test\n\
        passed\n  Test: Other ...passed    [FAILED] a message of the suite's end\n\n";

    #[test]
    fn failures_and_skips_belong_to_their_test() {
        let text = format!("{LISTING}               tests    4      4      3      1        0\n");
        let report = parse(&text).unwrap();
        assert_eq!(report.tests, 4);
        assert_eq!(report.failed, ["GetLBAStatus.BeyondEol"]);
        assert_eq!(
            report.skipped.into_iter().collect::<Vec<_>>(),
            ["NoMedia.NoMediaSBC: Not removable. Skipping test"]
        );
    }

    #[test]
    fn a_listing_that_contradicts_its_summary_or_has_none_is_an_error() {
        assert!(parse(LISTING).is_err());
        let text = format!("{LISTING}               tests    4      4      2      2        0\n");
        assert!(parse(&text).is_err());
    }
}
