//! Any text in well-formed login and text requests: negotiation, CHAP, and text continued over several PDUs. Pieces of
//! the text are separated by 0xff; the byte after it gives the flags of the next PDU.

#![no_main]

mod driver;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, text)) = data.split_first() else {
        return;
    };
    let mut connection = driver::connection(how & 1 != 0);
    let mut stream = Vec::new();
    for piece in text.split(|byte| *byte == 0xff) {
        let Some((&flags, text)) = piece.split_first() else {
            continue;
        };
        let text = &text[..text.len().min(8192)];
        let mut header = [0; 48];
        header[0] = if how & 2 != 0 && flags & 0x20 != 0 {
            0x04
        } else {
            0x43
        };
        header[1] = flags & 0xcf;
        header[5..8].copy_from_slice(&(text.len() as u32).to_be_bytes()[1..]);
        header[8] = 0x80;
        header[16..20].copy_from_slice(&1_u32.to_be_bytes());
        header[27] = 1;
        stream.extend_from_slice(&header);
        stream.extend_from_slice(text);
        stream.resize(stream.len().next_multiple_of(4), 0);
    }
    driver::feed(&mut connection, &stream, 4096);
});
