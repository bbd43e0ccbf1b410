//! What every [`BlockDevice`] must do, as one test that any of them can be put through.
//!
//! [`check`] panics at the first thing that is wrong; it is meant for tests. It overwrites the device.

use std::io::ErrorKind;

use bytes::{Bytes, BytesMut};
use volume::block_device::{BlockDevice, IO_ALIGNMENT_BYTES, aligned_buffer};

/// Part of the device that is used: enough for runs that cross every boundary inside.
const SPAN_BYTES: u64 = 4 << 20;

/// Puts `device` (at least 4 MiB, contents lost) through reads, writes, zeroing, allocation, flushes and
/// refusals, first case by case, then `steps` random operations against a copy in memory; `seed` makes them
/// repeatable.
///
/// # Panics
/// When the device does something wrong.
pub async fn check<D: BlockDevice>(device: &D, seed: u64, steps: u32) {
    let size = device.size_bytes();
    assert!(size >= SPAN_BYTES, "the device is too small to be tested");
    let unit = device.alignment_bytes();
    assert!(
        unit.is_power_of_two() && unit <= IO_ALIGNMENT_BYTES,
        "alignment of {unit} bytes"
    );
    check_cases(device, unit as u64).await;
    check_refusals(device, unit as u64).await;
    check_against_copy(device, seed, steps).await;
}

async fn check_cases<D: BlockDevice>(device: &D, unit: u64) {
    let size = device.size_bytes();
    write(device, 0, &filled(0x11, SPAN_BYTES as usize)).await;
    // Both ends of the device, and neighbours that must stay.
    for at in [0, 8192, (size - unit) / unit * unit] {
        let before = filled(0x22, unit as usize);
        write(device, at, &before).await;
        assert_eq!(read(device, at, unit as usize).await, before, "at {at}");
    }
    assert_eq!(
        read(device, unit, unit as usize).await,
        filled(0x11, unit as usize),
        "a write spilled over"
    );
    for deallocate in [false, true] {
        write(device, 0, &filled(0x33, 256 * 1024)).await;
        let (start, length) = (3 * unit, 100 * 1024 / unit * unit);
        zero(device, start, length, deallocate).await;
        let got = read(device, 0, 256 * 1024).await;
        for (at, &byte) in got.iter().enumerate() {
            let inside = (start..start + length).contains(&(at as u64));
            assert_eq!(
                byte,
                if inside { 0 } else { 0x33 },
                "byte {at} after zeroing"
            );
        }
    }
    device.flush().await.expect("flush");
    device.flush().await.expect("second flush");
    // Data is never called deallocated, and what is called deallocated reads as zeroes.
    write(device, 1 << 20, &filled(0x44, 1 << 20)).await;
    zero(device, 1 << 20, 512 * 1024, true).await;
    assert_truth(device, &read(device, 0, SPAN_BYTES as usize).await).await;
    // Nothing at all is allowed, anywhere up to the end.
    write(device, size, &[]).await;
    assert_eq!(read(device, size, 0).await, [0_u8; 0]);
    zero(device, size, 0, true).await;
}

async fn check_refusals<D: BlockDevice>(device: &D, unit: u64) {
    let size = device.size_bytes();
    let last = (size - unit) / unit * unit;
    let huge = u64::MAX / unit * unit;
    for (offset, length) in [
        (size, unit),
        (last, 4 * unit),
        (huge, unit),
        (huge - 4 * unit, 16 * unit),
    ] {
        let (result, buf) = device
            .read(offset, buffer(&filled(0x55, length as usize)))
            .await;
        assert_invalid(result, "read", offset);
        assert_eq!(buf.len(), length as usize, "the buffer comes back");
        let data = buffer(&filled(0x66, length as usize)).freeze();
        assert_invalid(device.write(offset, data).await, "write", offset);
        let zeroed = device.write_zeroes(offset, length, true).await;
        assert_invalid(zeroed, "write_zeroes", offset);
        let told = device.allocation(offset, length).await.map(drop);
        assert_invalid(told, "allocation", offset);
    }
    assert_eq!(
        device.size_bytes(),
        size,
        "a refused operation grew the device"
    );
    if unit > 1 {
        let data = Bytes::from(vec![0; unit as usize]);
        assert_invalid(
            device.write(unit / 2, data).await,
            "unaligned write",
            unit / 2,
        );
        let (result, _) = device.read(unit / 2, aligned_buffer(unit as usize)).await;
        assert_invalid(result, "unaligned read", unit / 2);
        let (result, _) = device.read(0, aligned_buffer(unit as usize / 2)).await;
        assert_invalid(result, "read of half a block", 0);
    }
}

fn assert_invalid(result: std::io::Result<()>, what: &str, offset: u64) {
    match result {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {}
        other => panic!("{what} at {offset} gave {other:?} instead of InvalidInput"),
    }
}

/// Random operations, with a plain copy as the oracle.
async fn check_against_copy<D: BlockDevice>(device: &D, seed: u64, steps: u32) {
    let unit = device.alignment_bytes() as u64;
    let units = SPAN_BYTES / unit;
    let mut random = Random(seed | 1);
    let mut copy = vec![0_u8; SPAN_BYTES as usize];
    write(device, 0, &copy).await;
    for step in 0..steps {
        let start = random.below(units);
        let longest = (units - start).min(200_000 / unit + 1);
        let length = 1 + random.below(longest);
        let (offset, length) = (start * unit, (length * unit) as usize);
        let range = offset as usize..offset as usize + length;
        match random.below(8) {
            0..=2 => {
                let data = random.bytes(length);
                write(device, offset, &data).await;
                copy[range].copy_from_slice(&data);
            }
            3 => {
                zero(device, offset, length as u64, random.below(2) == 0).await;
                copy[range].fill(0);
            }
            4 => device.flush().await.expect("flush"),
            5 if step % 8 == 0 => assert_truth(device, &copy).await,
            _ => {
                let got = read(device, offset, length).await;
                assert!(got == copy[range], "step {step} (seed {seed}): wrong data");
            }
        }
    }
    let got = read(device, 0, SPAN_BYTES as usize).await;
    assert!(got == copy, "seed {seed}: wrong data at the end");
}

/// Walks the allocation of the first bytes, which hold `contents`: every answer is in bounds, and every
/// deallocated run is zero.
async fn assert_truth<D: BlockDevice>(device: &D, contents: &[u8]) {
    let mut at = 0;
    while at < contents.len() {
        let left = (contents.len() - at) as u64;
        let told = device
            .allocation(at as u64, left)
            .await
            .expect("allocation");
        assert!(
            (1..=left).contains(&told.length_bytes),
            "allocation of {} bytes where {left} were asked for",
            told.length_bytes
        );
        let run = &contents[at..at + told.length_bytes as usize];
        assert!(
            told.allocated || run.iter().all(|&byte| byte == 0),
            "data at {at} is called deallocated"
        );
        at += told.length_bytes as usize;
    }
}

fn filled(byte: u8, length: usize) -> Vec<u8> {
    vec![byte; length]
}

fn buffer(data: &[u8]) -> BytesMut {
    let mut buf = aligned_buffer(data.len());
    buf.copy_from_slice(data);
    buf
}

async fn read<D: BlockDevice>(device: &D, offset: u64, length: usize) -> Vec<u8> {
    let mut buf = aligned_buffer(length);
    buf.fill(0xee); // so that bytes the device forgets are seen
    let (result, buf) = device.read(offset, buf).await;
    result.expect("read");
    assert_eq!(buf.len(), length, "the buffer changed its length");
    buf.to_vec()
}

async fn write<D: BlockDevice>(device: &D, offset: u64, data: &[u8]) {
    let data = buffer(data).freeze();
    device.write(offset, data).await.expect("write");
}

async fn zero<D: BlockDevice>(device: &D, offset: u64, length: u64, deallocate: bool) {
    let zeroed = device.write_zeroes(offset, length, deallocate).await;
    zeroed.expect("write_zeroes");
}

/// A small generator (xorshift64), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
