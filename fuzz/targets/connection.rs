//! Any bytes on a connection, before and after a login. The first byte says in which pieces they come and whether a
//! login went before.

#![no_main]

mod driver;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else {
        return;
    };
    let mut connection = driver::connection(how & 2 != 0);
    if how & 1 != 0 {
        driver::feed(&mut connection, &login(), 4096);
    }
    driver::feed(&mut connection, bytes, 1 + usize::from(how >> 2) * 16);
});

/// A login request that goes to full feature phase at once.
fn login() -> Vec<u8> {
    let text =
        b"InitiatorName=iqn.x:i\0TargetName=iqn.x:t\0SessionType=Normal\0HeaderDigest=None\0";
    let mut bytes = vec![0; 48];
    bytes[0] = 0x43;
    bytes[1] = 0x87;
    bytes[7] = text.len() as u8;
    bytes[8] = 0x80;
    bytes[27] = 1;
    bytes.extend_from_slice(text);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
