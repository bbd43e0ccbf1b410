//! The mode pages: caching, control, informational exceptions control.

use crate::error::ParseError;
use crate::wire::{View, flag};

/// PAGE CODE values.
pub mod page_code {
    /// Caching (SBC-3 6.5.5).
    pub const CACHING: u8 = 0x08;
    /// Control (SPC-4 7.5.8).
    pub const CONTROL: u8 = 0x0a;
    /// Informational exceptions control (SPC-4).
    pub const INFORMATIONAL_EXCEPTIONS: u8 = 0x1c;
    /// Every page.
    pub const ALL: u8 = 0x3f;
}

/// Caching page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachingPage {
    /// WCE: writes may be answered from a volatile cache.
    pub write_cache_enable: bool,
    /// RCD: reads bypass the cache.
    pub read_cache_disable: bool,
}

/// Control page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlPage {
    /// TST, 0 to 7: 0 one task set for all nexuses, 1 one for each.
    pub task_set_type: u8,
    /// TMF_ONLY: only task management ends an ACA condition.
    pub task_management_only: bool,
    /// D_SENSE: sense data is returned in descriptor format.
    pub descriptor_sense: bool,
    /// GLTSD: log parameters are not saved on their own.
    pub global_logging_target_save_disable: bool,
    /// QUEUE ALGORITHM MODIFIER, 0 to 15: 1 is unrestricted reordering.
    pub queue_algorithm_modifier: u8,
    /// QERR, 0 to 3: what becomes of other tasks after a CHECK CONDITION; 0 nothing.
    pub queue_error: u8,
    /// UA_INTLCK_CTRL, 0 to 3: 0 unit attentions are cleared when reported.
    pub unit_attention_interlock: u8,
    /// SWP: no writing.
    pub software_write_protect: bool,
    /// TAS: tasks aborted by another nexus end with TASK ABORTED.
    pub task_aborted_status: bool,
    /// BUSY TIMEOUT PERIOD in 100 ms; FFFFh is without limit.
    pub busy_timeout_100ms: u16,
}

/// Informational exceptions control page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InformationalExceptionsPage {
    /// DEXCPT: informational exceptions are not reported.
    pub disable_exceptions: bool,
    /// MRIE, 0 to 15: how they are reported.
    pub method: u8,
}

impl CachingPage {
    /// Length of the page in bytes.
    pub(super) const BYTES: usize = 20;

    fn encode(&self) -> [u8; CachingPage::BYTES] {
        let mut page = [0; CachingPage::BYTES];
        page[0] = page_code::CACHING;
        page[1] = (CachingPage::BYTES - 2) as u8;
        page[2] = flag(self.write_cache_enable, 2) | flag(self.read_cache_disable, 0);
        page
    }

    fn decode(page: View<'_>) -> Result<CachingPage, ParseError> {
        let flags = page.u8(2)?;
        Ok(CachingPage {
            write_cache_enable: flags & 0x04 != 0,
            read_cache_disable: flags & 0x01 != 0,
        })
    }
}

impl ControlPage {
    /// Length of the page in bytes.
    pub(super) const BYTES: usize = 12;

    fn encode(&self) -> [u8; ControlPage::BYTES] {
        let mut page = [0; ControlPage::BYTES];
        page[0] = page_code::CONTROL;
        page[1] = (ControlPage::BYTES - 2) as u8;
        page[2] = self.task_set_type << 5
            | flag(self.task_management_only, 4)
            | flag(self.descriptor_sense, 2)
            | flag(self.global_logging_target_save_disable, 1);
        page[3] = self.queue_algorithm_modifier << 4 | (self.queue_error & 0x3) << 1;
        page[4] = (self.unit_attention_interlock & 0x3) << 4 | flag(self.software_write_protect, 3);
        page[5] = flag(self.task_aborted_status, 6);
        page[8..10].copy_from_slice(&self.busy_timeout_100ms.to_be_bytes());
        page
    }

    fn decode(page: View<'_>) -> Result<ControlPage, ParseError> {
        let first = page.u8(2)?;
        Ok(ControlPage {
            task_set_type: first >> 5,
            task_management_only: first & 0x10 != 0,
            descriptor_sense: first & 0x04 != 0,
            global_logging_target_save_disable: first & 0x02 != 0,
            queue_algorithm_modifier: page.u8(3)? >> 4,
            queue_error: page.u8(3)? >> 1 & 0x3,
            unit_attention_interlock: page.u8(4)? >> 4 & 0x3,
            software_write_protect: page.u8(4)? & 0x08 != 0,
            task_aborted_status: page.u8(5)? & 0x40 != 0,
            busy_timeout_100ms: page.u16(8)?,
        })
    }
}

impl InformationalExceptionsPage {
    /// Length of the page in bytes.
    pub(super) const BYTES: usize = 12;

    fn encode(&self) -> [u8; InformationalExceptionsPage::BYTES] {
        let mut page = [0; InformationalExceptionsPage::BYTES];
        page[0] = page_code::INFORMATIONAL_EXCEPTIONS;
        page[1] = (InformationalExceptionsPage::BYTES - 2) as u8;
        page[2] = flag(self.disable_exceptions, 3);
        page[3] = self.method & 0x0f;
        page
    }

    fn decode(page: View<'_>) -> Result<InformationalExceptionsPage, ParseError> {
        Ok(InformationalExceptionsPage {
            disable_exceptions: page.u8(2)? & 0x08 != 0,
            method: page.u8(3)? & 0x0f,
        })
    }
}

/// Every mode page of a logical unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModePages {
    /// 08h.
    pub caching: CachingPage,
    /// 0Ah.
    pub control: ControlPage,
    /// 1Ch.
    pub informational_exceptions: InformationalExceptionsPage,
}

impl ModePages {
    /// What MODE SELECT may change: D_SENSE, SWP and TAS of the control page.
    pub const CHANGEABLE: ModePages = ModePages {
        caching: CachingPage {
            write_cache_enable: false,
            read_cache_disable: false,
        },
        control: ControlPage {
            task_set_type: 0,
            task_management_only: false,
            descriptor_sense: true,
            global_logging_target_save_disable: false,
            queue_algorithm_modifier: 0,
            queue_error: 0,
            unit_attention_interlock: 0,
            software_write_protect: true,
            task_aborted_status: true,
            busy_timeout_100ms: 0,
        },
        informational_exceptions: InformationalExceptionsPage {
            disable_exceptions: false,
            method: 0,
        },
    };

    /// The page codes, in the order that all-pages returns them.
    pub const CODES: [u8; 3] = [
        page_code::CACHING,
        page_code::CONTROL,
        page_code::INFORMATIONAL_EXCEPTIONS,
    ];

    /// One page, PS zero (parameters cannot be saved); `None` for a page that does not exist.
    pub fn encode_page(&self, code: u8) -> Option<Vec<u8>> {
        match code {
            page_code::CACHING => Some(self.caching.encode().to_vec()),
            page_code::CONTROL => Some(self.control.encode().to_vec()),
            page_code::INFORMATIONAL_EXCEPTIONS => {
                Some(self.informational_exceptions.encode().to_vec())
            }
            _ => None,
        }
    }

    /// Takes over one page from its bytes (PS ignored). `Ok(false)` for a page that is not known.
    ///
    /// # Errors
    /// The page is shorter than its standard length.
    pub fn decode_page(&mut self, page: &[u8]) -> Result<bool, ParseError> {
        let view = View::new(page, "mode page");
        match view.u8(0)? & 0x7f {
            page_code::CACHING => self.caching = CachingPage::decode(view)?,
            page_code::CONTROL => self.control = ControlPage::decode(view)?,
            page_code::INFORMATIONAL_EXCEPTIONS => {
                self.informational_exceptions = InformationalExceptionsPage::decode(view)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_by_hand() {
        let pages = ModePages {
            caching: CachingPage {
                write_cache_enable: true,
                read_cache_disable: false,
            },
            control: ControlPage {
                task_set_type: 1,
                descriptor_sense: true,
                queue_algorithm_modifier: 1,
                queue_error: 0,
                software_write_protect: true,
                task_aborted_status: true,
                busy_timeout_100ms: 0xffff,
                ..ControlPage::default()
            },
            informational_exceptions: InformationalExceptionsPage {
                disable_exceptions: true,
                method: 6,
            },
        };
        let caching = pages.encode_page(0x08).expect("known");
        assert_eq!(
            (caching.len(), &caching[..3]),
            (20, &[0x08, 0x12, 0x04][..])
        );
        assert_eq!(
            pages.encode_page(0x0a).expect("known"),
            [0x0a, 0x0a, 0x24, 0x10, 0x08, 0x40, 0, 0, 0xff, 0xff, 0, 0]
        );
        assert_eq!(
            pages.encode_page(0x1c).expect("known"),
            [0x1c, 0x0a, 0x08, 6, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(pages.encode_page(0x01), None);

        let mut read = ModePages::default();
        for code in ModePages::CODES {
            assert_eq!(
                read.decode_page(&pages.encode_page(code).expect("known")),
                Ok(true)
            );
        }
        assert_eq!(read, pages);
        assert_eq!(read.decode_page(&[0x01, 0]), Ok(false));
        assert!(read.decode_page(&[0x0a, 10, 0]).is_err());
    }
}
