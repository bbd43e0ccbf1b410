//! LOG SENSE data: supported log pages, temperature, informational exceptions (SPC-4 7.3).

use crate::cdb::LogSense;
use crate::error::ParseError;
use crate::sense::{AdditionalSense, Sense};
use crate::wire::{View, length_u16};

/// PAGE CODE values.
pub mod page_code {
    /// Supported log pages.
    pub const SUPPORTED_PAGES: u8 = 0x00;
    /// Temperature.
    pub const TEMPERATURE: u8 = 0x0d;
    /// Informational exceptions.
    pub const INFORMATIONAL_EXCEPTIONS: u8 = 0x2f;
}

/// FORMAT AND LINKING 11b: a binary list parameter.
const LIST_BINARY: u8 = 0x03;

/// What the log pages tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogData {
    /// The informational exception that exists; [`AdditionalSense::NONE`] for none.
    pub exception: AdditionalSense,
    /// Degrees Celsius; `None` where there is no sensor, and then there is no temperature page.
    pub temperature_celsius: Option<u8>,
}

impl LogData {
    fn pages(&self) -> Vec<u8> {
        let mut pages = vec![page_code::SUPPORTED_PAGES];
        if self.temperature_celsius.is_some() {
            pages.push(page_code::TEMPERATURE);
        }
        pages.push(page_code::INFORMATIONAL_EXCEPTIONS);
        pages
    }

    /// The log parameters of a page as (code, value); `None` for a page that does not exist.
    fn parameters(&self, page: u8) -> Option<Vec<(u16, Vec<u8>)>> {
        match page {
            page_code::TEMPERATURE => self
                .temperature_celsius
                .map(|celsius| vec![(0, vec![0, celsius])]),
            page_code::INFORMATIONAL_EXCEPTIONS => {
                let celsius = self.temperature_celsius.unwrap_or(0);
                Some(vec![(
                    0,
                    vec![self.exception.code, self.exception.qualifier, celsius, 0],
                )])
            }
            _ => None,
        }
    }
}

/// Builds the data for a LOG SENSE command, not yet cut to the allocation length. PC is not looked at: list parameters
/// have one value.
///
/// # Errors
/// INVALID FIELD IN CDB for SP, a page or subpage that does not exist, or a PARAMETER POINTER beyond the last parameter.
pub fn log_sense(command: &LogSense, log: &LogData) -> Result<Vec<u8>, Sense> {
    if command.save_parameters {
        return Err(Sense::invalid_field_in_cdb(1, Some(0)));
    }
    let subpages = match command.subpage_code {
        0x00 => false,
        0xff => true,
        _ => return Err(Sense::invalid_field_in_cdb(3, None)),
    };
    let mut body = Vec::new();
    if command.page_code == page_code::SUPPORTED_PAGES {
        if command.parameter_pointer != 0 {
            return Err(Sense::invalid_field_in_cdb(5, None));
        }
        if subpages {
            // The page 00h, subpage FFh list has both codes of each page, and itself.
            body.extend([0x00, 0x00, 0x00, 0xff]);
            body.extend(log.pages().iter().skip(1).flat_map(|&page| [page, 0x00]));
        } else {
            body = log.pages();
        }
    } else {
        let parameters = log
            .parameters(command.page_code)
            .ok_or(Sense::invalid_field_in_cdb(2, Some(5)))?;
        if subpages {
            return Err(Sense::invalid_field_in_cdb(3, None));
        }
        if parameters
            .iter()
            .all(|(code, _)| *code < command.parameter_pointer)
        {
            return Err(Sense::invalid_field_in_cdb(5, None));
        }
        for (code, value) in parameters
            .iter()
            .filter(|(code, _)| *code >= command.parameter_pointer)
        {
            body.extend(code.to_be_bytes());
            // Values are a few bytes long.
            body.extend([LIST_BINARY, value.len() as u8]);
            body.extend(value);
        }
    }
    let spf = if subpages { 0x40 } else { 0x00 };
    let [high, low] = length_u16(body.len()).to_be_bytes();
    Ok([
        &[spf | command.page_code, command.subpage_code, high, low][..],
        &body,
    ]
    .concat())
}

/// A log page as an initiator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// PAGE CODE.
    pub page_code: u8,
    /// SUBPAGE CODE.
    pub subpage_code: u8,
    /// Everything behind the header.
    pub body: Vec<u8>,
}

impl LogPage {
    /// Reads a log page; a page cut short by the allocation length is no error.
    ///
    /// # Errors
    /// The header is cut short.
    pub fn parse(data: &[u8]) -> Result<LogPage, ParseError> {
        let view = View::new(data, "log page");
        let length = usize::from(view.u16(2)?);
        let body = &data[4..data.len().min(4 + length)];
        Ok(LogPage {
            page_code: view.u8(0)? & 0x3f,
            subpage_code: view.u8(1)?,
            body: body.to_vec(),
        })
    }

    /// The complete log parameters, as (PARAMETER CODE, value).
    pub fn parameters(&self) -> Vec<(u16, &[u8])> {
        let mut parameters = Vec::new();
        let mut rest = &self.body[..];
        while let [high, low, _, length, tail @ ..] = rest {
            let Some((value, next)) = tail.split_at_checked(usize::from(*length)) else {
                break;
            };
            parameters.push((u16::from_be_bytes([*high, *low]), value));
            rest = next;
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdb::PageControl;

    const LOG: LogData = LogData {
        exception: AdditionalSense {
            code: 0x5d,
            qualifier: 1,
        },
        temperature_celsius: Some(30),
    };

    fn sense(page_code: u8, subpage_code: u8, parameter_pointer: u16) -> Result<Vec<u8>, Sense> {
        let command = LogSense {
            save_parameters: false,
            page_control: PageControl::Changeable,
            page_code,
            subpage_code,
            parameter_pointer,
            allocation_length: 512,
        };
        log_sense(&command, &LOG)
    }

    #[test]
    fn bytes_by_hand() {
        assert_eq!(sense(0x00, 0, 0), Ok(vec![0, 0, 0, 3, 0x00, 0x0d, 0x2f]));
        assert_eq!(
            sense(0x00, 0xff, 0),
            Ok(vec![0x40, 0xff, 0, 8, 0, 0, 0, 0xff, 0x0d, 0, 0x2f, 0])
        );
        assert_eq!(
            sense(0x0d, 0, 0),
            Ok(vec![0x0d, 0, 0, 6, 0, 0, 3, 2, 0, 30])
        );
        assert_eq!(
            sense(0x2f, 0, 0),
            Ok(vec![0x2f, 0, 0, 8, 0, 0, 3, 4, 0x5d, 1, 30, 0])
        );
        let page = LogPage::parse(&sense(0x2f, 0, 0).expect("valid")).expect("valid");
        assert_eq!(page.parameters(), [(0, &[0x5d, 1, 30, 0][..])]);
        assert!(LogPage::parse(&[0x2f, 0, 0]).is_err());
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        assert_eq!(
            sense(0x10, 0, 0),
            Err(Sense::invalid_field_in_cdb(2, Some(5)))
        );
        assert_eq!(sense(0x2f, 1, 0), Err(Sense::invalid_field_in_cdb(3, None)));
        assert_eq!(sense(0x2f, 0, 1), Err(Sense::invalid_field_in_cdb(5, None)));
        let without = LogData {
            temperature_celsius: None,
            ..LOG
        };
        assert_eq!(without.pages(), [0x00, 0x2f]);
        assert_eq!(without.parameters(0x0d), None);
    }
}
