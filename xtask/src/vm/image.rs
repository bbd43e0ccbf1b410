//! The guests' disk image: debootstrap's minimal Debian, then `apt-get` in a chroot, then an ext4 file.
//! Cached under `.cache/vm`, in a folder named by a hash of everything that goes into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::process::{command, run, run_within};

const PACKAGES: &str = include_str!("../../vm/packages.txt");
const INIT: &str = include_str!("../../vm/init");
const MULTIPATH: &str = include_str!("../../vm/multipath.conf");
/// Counted up when this file changes what it builds.
const RECIPE_VERSION: u32 = 2;
const SIZE_MIB: u32 = 1400;
const LIMIT: Duration = Duration::from_secs(900);

/// A built image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Kernel to boot directly.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Root file system; guests open it with a snapshot, so that it never changes.
    pub root: PathBuf,
}

impl Image {
    /// The image of this recipe, built when the cache does not have it. Building takes root and one to two minutes.
    ///
    /// # Errors
    /// Not root, or a step of the build fails.
    pub fn obtain(repository: &Path) -> Result<Self> {
        let sources = debian_sources()?;
        let cache = repository.join(".cache/vm");
        let folder = cache.join(recipe_hash(&sources));
        if !folder.exists() {
            ensure!(
                rustix::process::geteuid().is_root(),
                "building the guest image takes root (debootstrap makes device nodes and uses chroot)"
            );
            if cache.exists() {
                fs::remove_dir_all(&cache).context("cannot remove an old image")?;
            }
            fs::create_dir_all(&cache)?;
            let work = cache.join("building");
            build(&work, &sources)?;
            fs::rename(&work, &folder)?;
        }
        Ok(Self {
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd"),
            root: folder.join("root.ext4"),
        })
    }
}

/// One source of Debian packages, as this machine's own apt has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    codename: String,
    component: String,
}

/// The Debian sources that this machine's apt uses; the guests get the same release from the same mirror.
fn debian_sources() -> Result<Vec<Source>> {
    let format = "$(ORIGIN)|$(CREATED_BY)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)";
    let listing = run(&mut command(
        "apt-get",
        ["indextargets", "--format", format],
    ))?;
    let sources = parse_sources(&listing);
    ensure!(
        !sources.is_empty(),
        "apt knows no Debian package lists; run 'apt-get update' first"
    );
    Ok(sources)
}

fn parse_sources(listing: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in listing.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let ["Debian", "Packages", uri, codename, component] = fields[..] else {
            continue;
        };
        let source = Source {
            uri: uri.into(),
            codename: codename.into(),
            component: component.into(),
        };
        if component == "main" && !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

fn recipe_hash(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    hash.update(RECIPE_VERSION.to_le_bytes());
    for part in [PACKAGES, INIT, MULTIPATH, std::env::consts::ARCH] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    for source in sources {
        hash.update(&source.codename);
        hash.update([0]);
    }
    hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn build(work: &Path, sources: &[Source]) -> Result<()> {
    let root = work.join("root");
    fs::create_dir_all(&root)?;
    // The shortest codename is the release itself: bookworm, not bookworm-updates.
    let release = sources
        .iter()
        .min_by_key(|source| source.codename.len())
        .context("no Debian source")?;
    run_within(
        command(
            "debootstrap",
            ["--variant=minbase", "--include=ca-certificates"],
        )
        .arg(&release.codename)
        .arg(&root)
        .arg(&release.uri),
        LIMIT,
    )?;
    prepare_apt(&root, sources)?;
    install_packages(&root)?;
    strip(&root)?;
    install_init(&root)?;
    fs::copy(
        newest(&root.join("boot"), "vmlinuz-")?,
        work.join("vmlinuz"),
    )?;
    fs::copy(
        newest(&root.join("boot"), "initrd.img-")?,
        work.join("initrd"),
    )?;
    run_within(
        command("mke2fs", ["-q", "-F", "-t", "ext4", "-d"])
            .arg(&root)
            .arg(work.join("root.ext4"))
            .arg(format!("{SIZE_MIB}M")),
        LIMIT,
    )?;
    fs::remove_dir_all(&root).context("cannot remove the unpacked image")
}

fn prepare_apt(root: &Path, sources: &[Source]) -> Result<()> {
    let list: String = sources
        .iter()
        .map(|source| {
            format!(
                "deb {} {} {}\n",
                source.uri, source.codename, source.component
            )
        })
        .collect();
    fs::write(root.join("etc/apt/sources.list"), list)?;
    // This machine's own apt settings (a proxy, a mirror whose lists have aged) hold for the chroot too.
    let settings = run(&mut command("apt-config", ["dump", "Acquire"]))?;
    let kept: String = settings
        .lines()
        .filter(|line| line.contains("Check-") || line.contains("::Proxy"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(root.join("etc/apt/apt.conf.d/90host"), kept)?;
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))?;
    // No service starts in the chroot, and what no test reads is not unpacked.
    write_executable(&root.join("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n")?;
    fs::write(
        root.join("etc/dpkg/dpkg.cfg.d/slim"),
        "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n",
    )?;
    Ok(())
}

fn install_packages(root: &Path) -> Result<()> {
    let mut install = Vec::new();
    let mut unpack = Vec::new();
    for line in PACKAGES.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("unpack ") {
            Some(name) => unpack.push(name),
            None if !line.is_empty() => install.push(line),
            None => {}
        }
    }
    let script = format!(
        "set -e; export DEBIAN_FRONTEND=noninteractive LC_ALL=C\n\
         apt-get -q update\n\
         apt-get -q install -y --no-install-recommends initramfs-tools\n\
         echo MODULES=list > /etc/initramfs-tools/conf.d/modules\n\
         printf 'virtio_pci\\nvirtio_blk\\next4\\n' >> /etc/initramfs-tools/modules\n\
         apt-get -q install -y --no-install-recommends {}\n\
         cd /tmp; apt-get -q download {}; for deb in *.deb; do dpkg -x $deb /; rm $deb; done\n\
         apt-get clean; rm -rf /var/lib/apt/lists/*",
        install.join(" "),
        unpack.join(" ")
    );
    run_within(command("chroot", [root]).args(["sh", "-c", &script]), LIMIT).map(drop)
}

/// Drops drivers of the kernel package that no guest can meet; they are half of the image.
fn strip(root: &Path) -> Result<()> {
    let modules = newest(&root.join("usr/lib/modules"), "")?.join("kernel");
    for folder in [
        "drivers/ata",
        "drivers/bluetooth",
        "drivers/comedi",
        "drivers/gpu",
        "drivers/iio",
        "drivers/infiniband",
        "drivers/isdn",
        "drivers/media",
        "drivers/net/can",
        "drivers/net/ethernet",
        "drivers/net/usb",
        "drivers/net/wireless",
        "drivers/staging",
        "drivers/usb",
        "net/bluetooth",
        "net/mac80211",
        "net/wireless",
        "sound",
    ] {
        let path = modules.join(folder);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    let version = newest(&root.join("usr/lib/modules"), "")?;
    let version = version.file_name().context("a kernel version")?;
    run(command("chroot", [root]).arg("depmod").arg(version)).map(drop)
}

fn install_init(root: &Path) -> Result<()> {
    write_executable(&root.join("sbin/rf-init"), INIT)?;
    fs::write(root.join("etc/multipath.conf"), MULTIPATH)?;
    Ok(())
}

fn write_executable(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn newest(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort();
    match found.pop() {
        Some(path) => Ok(path),
        None => bail!("no {prefix}* in {}", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "Debian|Packages|http://m/debian/|bookworm|main\n\
        Debian|DEP-11|http://m/debian/|bookworm|main\n\
        Other|Packages|http://o/|bookworm|main\n\
        Debian|Packages|http://m/security/|bookworm-security|main\n";

    #[test]
    fn sources_are_debians_package_lists() {
        let names: Vec<String> = parse_sources(LISTING)
            .into_iter()
            .map(|s| s.codename)
            .collect();
        assert_eq!(names, ["bookworm", "bookworm-security"]);
    }

    #[test]
    fn the_hash_knows_the_release_but_not_the_mirror() {
        let here = parse_sources(LISTING);
        let elsewhere = parse_sources(&LISTING.replace("http://m", "http://n"));
        let trixie = parse_sources(&LISTING.replace("bookworm", "trixie"));
        assert_eq!(recipe_hash(&here), recipe_hash(&elsewhere));
        assert_ne!(recipe_hash(&here), recipe_hash(&trixie));
    }
}
