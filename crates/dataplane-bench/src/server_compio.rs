//! compio: a completion-based runtime from crates.io, on io_uring; the file through its ring or by an inline read.

use std::net::TcpListener;
use std::path::Path;
use std::rc::Rc;

use anyhow::Result;
use compio::BufResult;
use compio::fs::File;
use compio::io::{AsyncRead, AsyncReadAtExt, AsyncWriteExt};
use compio::net::TcpStream;

use crate::protocol::{
    ANSWER_BYTES, BLOCK_BYTES, HEADER_BYTES, RECV_BYTES, offset_bytes, read_inline,
};

/// Serves until the process ends.
pub fn serve(listener: TcpListener, path: &Path, inline: bool) -> Result<()> {
    compio::runtime::Runtime::new()?.block_on(async {
        let file = Rc::new(File::open(path).await?);
        let plain = Rc::new(std::fs::File::open(path)?);
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let (file, plain) = (file.clone(), inline.then(|| plain.clone()));
            compio::runtime::spawn(async move {
                if let Err(error) = connection(stream, file, plain).await {
                    eprintln!("connection: {error}");
                }
            })
            .detach();
        }
    })
}

async fn connection(
    mut stream: TcpStream,
    file: Rc<File>,
    plain: Option<Rc<std::fs::File>>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut rest: Vec<u8> = Vec::new();
    let mut recv = Vec::with_capacity(RECV_BYTES);
    let mut answers = Vec::new();
    loop {
        recv.clear();
        let BufResult(result, back) = stream.read(recv).await;
        recv = back;
        if result? == 0 {
            return Ok(());
        }
        rest.extend_from_slice(&recv);
        let complete = rest.len() / HEADER_BYTES * HEADER_BYTES;
        answers.clear();
        if let Some(plain) = &plain {
            answers.resize(complete / HEADER_BYTES * ANSWER_BYTES, 0);
            let pairs = rest[..complete]
                .chunks_exact(HEADER_BYTES)
                .zip(answers.chunks_exact_mut(ANSWER_BYTES));
            for (request, answer) in pairs {
                answer[..HEADER_BYTES].copy_from_slice(request);
                read_inline(plain, offset_bytes(request), &mut answer[HEADER_BYTES..])?;
            }
        } else if complete == HEADER_BYTES {
            answers.extend_from_slice(&rest[..complete]);
            answers.extend_from_slice(&block(&file, offset_bytes(&rest)).await?);
        } else {
            let reads: Vec<_> = rest[..complete]
                .chunks_exact(HEADER_BYTES)
                .map(|request| {
                    let (file, offset) = (file.clone(), offset_bytes(request));
                    compio::runtime::spawn(async move { block(&file, offset).await })
                })
                .collect();
            for (request, read) in rest[..complete].chunks_exact(HEADER_BYTES).zip(reads) {
                answers.extend_from_slice(request);
                let block = read
                    .await
                    .map_err(|_| anyhow::anyhow!("a read was cancelled"))?;
                answers.extend_from_slice(&block?);
            }
        }
        let BufResult(result, back) = stream.write_all(answers).await;
        answers = back;
        result?;
        rest.drain(..complete);
    }
}

async fn block(file: &File, offset_bytes: u64) -> Result<Vec<u8>> {
    let block = Vec::with_capacity(BLOCK_BYTES);
    let BufResult(result, block) = file.read_exact_at(block, offset_bytes).await;
    result?;
    Ok(block)
}
