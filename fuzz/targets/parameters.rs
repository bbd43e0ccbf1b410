//! Any parameter list of PERSISTENT RESERVE OUT, UNMAP, MODE SELECT and SANITIZE, and any parameter data that an
//! initiator reads. The first byte picks the parser.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scsi::cdb::{Cdb, PersistentReserveOutAction};
use scsi::pr::OutParameters;

fuzz_target!(|data: &[u8]| {
    let Some((&which, list)) = data.split_first() else {
        return;
    };
    match which % 16 {
        action @ 0..=8 => {
            let cdb = [0x5f, action, 0, 0, 0, 0, 0, 0, 24, 0];
            if let Ok(Cdb::PersistentReserveOut(out)) = Cdb::decode(&cdb) {
                reserve_out(out.action, list);
            }
        }
        9 => {
            let _ = scsi::unmap::parse(list);
        }
        10 => mode_select(list),
        11 => {
            let _ = scsi::sanitize::OverwriteParameters::parse(list, 512);
        }
        12 => {
            let _ = scsi::pr::parse_full_status(list);
            let _ = scsi::pr::parse_keys(list);
            let _ = scsi::pr::parse_reservation(list);
        }
        13 => {
            let _ = scsi::vpd::parse_identification(list);
            let _ = scsi::inquiry::StandardInquiry::parse(list);
            let _ = scsi::Sense::parse(list);
        }
        14 => {
            let _ = scsi::lba_status::parse(list);
            let _ = scsi::report_luns::parse(list);
        }
        _ => {
            let _ = scsi::mode::parse_mode_data(scsi::cdb::ModeSize::Ten, list);
            let _ = scsi::mode::parse_mode_data(scsi::cdb::ModeSize::Six, list);
        }
    }
});

/// What was understood is understood again from its own encoding.
fn reserve_out(action: PersistentReserveOutAction, list: &[u8]) {
    if let Ok(parameters) = OutParameters::parse(action, list) {
        assert_eq!(
            OutParameters::parse(action, &parameters.encode()),
            Ok(parameters)
        );
    }
}

fn mode_select(list: &[u8]) {
    let Some((&flags, list)) = list.split_first() else {
        return;
    };
    let cdb = [
        0x55,
        flags & 0x11,
        0,
        0,
        0,
        0,
        0,
        (list.len() >> 8) as u8,
        list.len() as u8,
        0,
    ];
    if let Ok(Cdb::ModeSelect(command)) = Cdb::decode(&cdb) {
        let pages = scsi::mode::ModePages::default();
        let block = scsi::mode::BlockDescriptor {
            blocks: 1000,
            block_length_bytes: 512,
        };
        let _ = scsi::mode::mode_select(&command, list, &pages, &pages, block);
    }
}
