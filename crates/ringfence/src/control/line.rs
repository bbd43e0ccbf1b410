//! Lines of JSON with a limit on their length.

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The longest line that is read, in bytes. The largest legitimate one is the key list of a volume with all
/// registrant slots in use, far below.
pub const LINE_MAX_BYTES: u64 = 16 << 20;

/// Why no line could be had.
#[derive(Debug, Error)]
pub enum LineError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Longer than [`LINE_MAX_BYTES`], or the other end stopped in the middle of a line.
    #[error("the line is cut short or too long")]
    Unfinished,
    /// Not what was expected.
    #[error("the line is not understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Reads one line; `None` at a clean end.
pub fn read_line<T: DeserializeOwned>(reader: &mut impl BufRead) -> Result<Option<T>, LineError> {
    let mut line = Vec::new();
    // The limit is per line, hence a new `take` for each.
    let mut limited = io::Read::take(&mut *reader, LINE_MAX_BYTES);
    limited.read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(LineError::Unfinished),
    }
}

/// Writes `value` as one line with one system call where the socket takes it.
pub fn write_line(writer: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line)?;
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_lines_out() {
        let mut wire = Vec::new();
        write_line(&mut wire, &"a\nb").unwrap();
        write_line(&mut wire, &7).unwrap();
        let mut reader = wire.as_slice();
        assert_eq!(
            read_line::<String>(&mut reader).unwrap().as_deref(),
            Some("a\nb")
        );
        assert_eq!(read_line::<u32>(&mut reader).unwrap(), Some(7));
        assert_eq!(read_line::<u32>(&mut reader).unwrap(), None);
    }

    #[test]
    fn half_lines_and_other_json_are_errors() {
        assert!(matches!(
            read_line::<u32>(&mut b"12".as_slice()),
            Err(LineError::Unfinished)
        ));
        assert!(matches!(
            read_line::<u32>(&mut b"{}\n".as_slice()),
            Err(LineError::Malformed(_))
        ));
        let long = vec![b'1'; LINE_MAX_BYTES as usize + 2];
        assert!(matches!(
            read_line::<u32>(&mut long.as_slice()),
            Err(LineError::Unfinished)
        ));
    }
}
