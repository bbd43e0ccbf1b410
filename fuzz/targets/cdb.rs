//! Any CDB: decoding never panics, and what was decoded is the same after encoding and decoding again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scsi::Cdb;

fuzz_target!(|data: &[u8]| {
    let Ok(cdb) = Cdb::decode(data) else {
        return;
    };
    let bytes = cdb.encode();
    assert_eq!(
        Cdb::decode(&bytes).as_ref(),
        Ok(&cdb),
        "{data:02x?} became {:02x?}",
        &bytes[..]
    );
});
