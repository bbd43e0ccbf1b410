//! How a check says that it failed.

/// Ends the history: something that was promised does not hold.
///
/// # Panics
/// Always; the harness catches it and prints the seed.
pub fn violation(problem: &str) -> ! {
    panic!("VIOLATION {problem}")
}

/// Whether a replay tells everything that it does.
pub static TRACE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Tells something in a replay.
macro_rules! trace {
    ($($words:tt)*) => {
        if $crate::violation::TRACE.load(std::sync::atomic::Ordering::Relaxed) {
            eprintln!($($words)*);
        }
    };
}
pub(crate) use trace;
