//! The load: blocking threads, one a connection, that keep a number of requests outstanding.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::protocol::{ANSWER_BYTES, BLOCKS, HEADER_BYTES, number, request};

/// Runs `connections` at `depth` for `duration`; gives answers a second and their number.
pub fn run(
    addr: SocketAddr,
    connections: usize,
    depth: usize,
    duration: Duration,
) -> Result<(f64, u64)> {
    let start = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|seed| {
            std::thread::spawn(move || connection(addr, depth, start + duration, seed as u64))
        })
        .collect();
    let mut answers = 0;
    for thread in threads {
        answers += thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client thread panicked"))??;
    }
    Ok((answers as f64 / start.elapsed().as_secs_f64(), answers))
}

fn connection(addr: SocketAddr, depth: usize, end: Instant, seed: u64) -> Result<u64> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut random = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % BLOCKS
    };
    let mut requests: Vec<u8> = (0..depth).flat_map(|_| request(next())).collect();
    stream.write_all(&requests)?;
    let mut buf = vec![0_u8; ANSWER_BYTES * depth];
    let (mut filled, mut answers, mut outstanding) = (0, 0_u64, depth);
    while outstanding > 0 {
        let count = stream.read(&mut buf[filled..])?;
        ensure!(count > 0, "the server closed the connection");
        filled += count;
        let complete = filled / ANSWER_BYTES;
        for answer in buf[..complete * ANSWER_BYTES].chunks_exact(ANSWER_BYTES) {
            ensure!(
                number(answer) == number(&answer[HEADER_BYTES..]),
                "the server sent the wrong block"
            );
        }
        buf.copy_within(complete * ANSWER_BYTES..filled, 0);
        filled -= complete * ANSWER_BYTES;
        answers += complete as u64;
        outstanding -= complete;
        if complete > 0 && Instant::now() < end {
            requests.clear();
            for _ in 0..complete {
                requests.extend_from_slice(&request(next()));
            }
            stream.write_all(&requests)?;
            outstanding += complete;
        }
    }
    Ok(answers)
}
