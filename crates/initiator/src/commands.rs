//! Everyday commands.

use bytes::{Bytes, BytesMut};
use scsi::capacity::Capacity;
use scsi::cdb::{Inquiry, ReadCapacity16, ReportLuns, SynchronizeCache, Transfer, TransferSize};
use scsi::inquiry::StandardInquiry;
use scsi::{Cdb, Lun};

use crate::error::{CommandError, Error};
use crate::session::Session;

/// Each of these runs one command; errors are those of [`Session::command`], and [`Error::Parse`] for data that makes
/// no sense.
impl Session {
    /// Runs a decoded command.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn run(
        &mut self,
        lun: Lun,
        cdb: Cdb,
        data_out: Bytes,
        in_bytes: u32,
    ) -> Result<BytesMut, Error> {
        Ok(self
            .command(lun, &cdb.encode(), data_out, in_bytes)?
            .data_in)
    }

    /// TEST UNIT READY.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn test_unit_ready(&mut self, lun: Lun) -> Result<(), Error> {
        self.run(lun, Cdb::TestUnitReady, Bytes::new(), 0).map(drop)
    }

    /// TEST UNIT READY until no unit attention is left.
    ///
    /// # Errors
    /// As [`Session::command`], but for unit attentions, of which at most 32 are taken.
    pub fn clear_unit_attentions(&mut self, lun: Lun) -> Result<(), Error> {
        let mut result = self.test_unit_ready(lun);
        for _ in 0..32 {
            match &result {
                Err(Error::Command(CommandError {
                    sense: Some(sense), ..
                })) if sense.key == scsi::sense::SenseKey::UnitAttention => {}
                _ => break,
            }
            result = self.test_unit_ready(lun);
        }
        result
    }

    /// Standard INQUIRY data.
    ///
    /// # Errors
    /// As [`Session::command`], and [`Error::Parse`].
    pub fn inquiry(&mut self, lun: Lun) -> Result<StandardInquiry, Error> {
        let data = self.inquiry_data(lun, None)?;
        Ok(StandardInquiry::parse(&data)?)
    }

    /// A vital product data page, as it came.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn vital_product_data(&mut self, lun: Lun, page: u8) -> Result<BytesMut, Error> {
        self.inquiry_data(lun, Some(page))
    }

    fn inquiry_data(&mut self, lun: Lun, vpd_page: Option<u8>) -> Result<BytesMut, Error> {
        const ALLOCATION_LENGTH: u16 = 4096;
        let inquiry = Inquiry {
            vpd_page,
            allocation_length: ALLOCATION_LENGTH,
        };
        self.run(
            lun,
            Cdb::Inquiry(inquiry),
            Bytes::new(),
            ALLOCATION_LENGTH.into(),
        )
    }

    /// READ CAPACITY(16).
    ///
    /// # Errors
    /// As [`Session::command`], and [`Error::Parse`].
    pub fn read_capacity(&mut self, lun: Lun) -> Result<Capacity, Error> {
        let cdb = ReadCapacity16 {
            lba: 0,
            pmi: false,
            allocation_length: 32,
        };
        let data = self.run(lun, Cdb::ReadCapacity16(cdb), Bytes::new(), 32)?;
        Ok(Capacity::parse16(&data)?)
    }

    /// REPORT LUNS: those that can be addressed by number.
    ///
    /// # Errors
    /// As [`Session::command`], and [`Error::Parse`].
    pub fn report_luns(&mut self) -> Result<Vec<Lun>, Error> {
        const ALLOCATION_LENGTH: u32 = 64 * 1024;
        let cdb = ReportLuns {
            select_report: 0,
            allocation_length: ALLOCATION_LENGTH,
        };
        let data = self.run(
            Lun::default(),
            Cdb::ReportLuns(cdb),
            Bytes::new(),
            ALLOCATION_LENGTH,
        )?;
        let luns = scsi::report_luns::parse(&data)?;
        Ok(luns.into_iter().filter_map(Lun::decode).collect())
    }

    /// READ(16) of `length_blocks` blocks of `block_bytes` bytes.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn read(
        &mut self,
        lun: Lun,
        lba: u64,
        length_blocks: u32,
        block_bytes: u32,
    ) -> Result<BytesMut, Error> {
        let cdb = Cdb::Read(transfer(lba, length_blocks, false));
        self.run(
            lun,
            cdb,
            Bytes::new(),
            length_blocks.saturating_mul(block_bytes),
        )
    }

    /// WRITE(16); `data` is a whole number of blocks of `block_bytes` bytes. With `fua`, the blocks are on the medium
    /// when the call returns.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn write(
        &mut self,
        lun: Lun,
        lba: u64,
        data: Bytes,
        block_bytes: u32,
        fua: bool,
    ) -> Result<(), Error> {
        let length_bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let cdb = Cdb::Write(transfer(lba, length_bytes / block_bytes.max(1), fua));
        self.run(lun, cdb, data, 0).map(drop)
    }

    /// SYNCHRONIZE CACHE(16) of everything.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn synchronize_cache(&mut self, lun: Lun) -> Result<(), Error> {
        let cdb = SynchronizeCache {
            size: TransferSize::Sixteen,
            immediate: false,
            lba: 0,
            length_blocks: 0,
        };
        self.run(lun, Cdb::SynchronizeCache(cdb), Bytes::new(), 0)
            .map(drop)
    }
}

fn transfer(lba: u64, length_blocks: u32, fua: bool) -> Transfer {
    Transfer {
        size: TransferSize::Sixteen,
        lba,
        length_blocks,
        dpo: false,
        fua,
    }
}
