//! `ringfence pool ...`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::{fields, names};
use super::{Context, pick};
use crate::control::model::Pool;
use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::size::HumanSize;

/// The commands on the pool.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Show the pool: its devices, its space, and whether all is well
    Show,
    /// Take up the pool that lives on devices of another machine, or that was exported here
    Import(ImportArgs),
    /// Stop serving the pool and let go of its devices, so that another machine can import it
    Export(ExportArgs),
}

/// `pool import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence pool import /dev/disk/by-id/nvme-A /dev/disk/by-id/nvme-B

Everything is on the devices: volumes, grants, keys. Name all of them; a minority may be missing. A device of
another pool, or one that is behind, is never believed. The daemon must not have a pool yet.")]
pub struct ImportArgs {
    /// The files or block devices of the pool
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Go round the page cache (O_DIRECT)
    #[arg(long)]
    pub direct: bool,
}

/// `pool export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Export is refused while initiators are logged in. When it returns, all data is on the devices and nothing
has them open. What is exported in order keeps the registrations made without APTPL, as a restart of the
daemon does."
)]
pub struct ExportArgs {
    /// Also when initiators are logged in; their I/O is drained, and then fails
    #[arg(long)]
    pub force: bool,
}

/// Carries a pool command out.
pub fn run(context: &Context, command: PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::Show => {
            let pool = context.ask_for(Request::PoolShow, pick!(Answer::Pool))?;
            context.output.show(&pool, describe)
        }
        PoolCommand::Import(args) => {
            let paths = args
                .paths
                .iter()
                .map(|path| super::device::absolute(path))
                .collect::<Result<_, _>>()?;
            let request = Request::PoolImport {
                paths,
                direct: args.direct,
            };
            let pool = context.ask_for(request, pick!(Answer::Pool))?;
            context.output.show(&pool, |pool| {
                format!(
                    "pool {} imported: {} devices, {} volumes\n\n{}",
                    uuid(pool),
                    pool.devices.len(),
                    pool.volumes,
                    describe(pool)
                )
            })
        }
        PoolCommand::Export(ExportArgs { force }) => {
            let pool = context.ask_for(Request::PoolExport { force }, pick!(Answer::Pool))?;
            context.output.show(&pool, |pool| {
                format!(
                    "pool {} exported; import it with: ringfence pool import PATH...",
                    uuid(pool)
                )
            })
        }
    }
}

fn uuid(pool: &Pool) -> &str {
    pool.uuid.as_deref().unwrap_or("-")
}

fn describe(pool: &Pool) -> String {
    if pool.uuid.is_none() {
        return "no pool; make one with: ringfence device add NAME PATH, or take one up with: ringfence pool import PATH..."
            .to_owned();
    }
    let mut rows = vec![
        ("Pool", uuid(pool).to_owned()),
        ("State", pool.state.clone()),
        ("Devices", names(&pool.devices)),
    ];
    let bad = [
        ("Devices missing or failed", &pool.devices_missing),
        ("Volumes not served", &pool.volumes_not_served),
        ("Volumes degraded", &pool.volumes_degraded),
    ];
    rows.extend(
        bad.into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| (name, names(list))),
    );
    let config = &pool.config;
    rows.extend([
        ("Volumes", pool.volumes.to_string()),
        ("Size", HumanSize(pool.size_bytes).to_string()),
        ("Used", HumanSize(pool.used_bytes).to_string()),
        ("Free", HumanSize(pool.free_bytes).to_string()),
        (
            "Configuration",
            format!(
                "{} of {} copies current, {} needed",
                config.current, config.of, config.needed
            ),
        ),
    ]);
    fields(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::ConfigQuorum;

    #[test]
    fn a_pool_in_words() {
        let pool = Pool {
            uuid: Some("7d2c".to_owned()),
            state: "degraded".to_owned(),
            devices: vec!["d1".to_owned(), "d2".to_owned(), "d3".to_owned()],
            devices_missing: vec!["d2".to_owned()],
            volumes: 2,
            volumes_not_served: Vec::new(),
            volumes_degraded: vec!["shared".to_owned()],
            size_bytes: 3 << 30,
            used_bytes: 1 << 30,
            free_bytes: 2 << 30,
            config: ConfigQuorum {
                current: 2,
                of: 3,
                needed: 2,
            },
        };
        insta::assert_snapshot!(describe(&pool), @r"
        Pool                       7d2c
        State                      degraded
        Devices                    d1,d2,d3
        Devices missing or failed  d2
        Volumes degraded           shared
        Volumes                    2
        Size                       3 GiB
        Used                       1 GiB
        Free                       2 GiB
        Configuration              2 of 3 copies current, 2 needed
        ");
    }
}
