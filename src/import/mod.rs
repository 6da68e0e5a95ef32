//! `upslot import`: takes over the stored files of another program, whether upslot is running or not.
//!
//! - [`lua`] lists of Prosody and Metronome; [`record`] what each program tells about its files: pure, like `lua`;
//! - [`place`] puts files into the store; [`report`] the outcome;
//! - [`sources`] reads the records and folders of each program.
//!
//! Records and folders are read one entry at a time, and are not trusted: paths stay below the folder that the operator
//! names, links are never followed, and only regular files are opened.

pub mod lua;
pub mod record;

mod place;
mod report;
mod sources;

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::layout::MAX_DEPTH;
use crate::store::Store;
use crate::sys;

use place::{Fallback, Placer};
use record::Record;

/// The list of uploads in the folder of Prosody's file share.
const UPLOADS: &str = "uploads.list";

/// A program whose files can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// Prosody's `mod_http_file_share`.
    FileShare,
    /// `mod_http_upload` of Prosody and Metronome.
    HttpUpload,
    /// `mod_http_upload` of ejabberd.
    Ejabberd,
    /// Programs that use the paths of files in the links, and know no owners.
    Plain,
    SharePhp,
    Django,
}

/// Their names on the command line.
const PROGRAMS: [(&str, Program); 8] = [
    ("prosody-file-share", Program::FileShare),
    ("prosody-http-upload", Program::HttpUpload),
    ("metronome", Program::HttpUpload),
    ("ejabberd", Program::Ejabberd),
    ("hmac-file-server", Program::Plain),
    ("prosody-filer", Program::Plain),
    ("share.php", Program::SharePhp),
    ("django", Program::Django),
];

/// What to import.
#[derive(Debug)]
pub struct Import {
    program: Program,
    path: PathBuf,
    fallback: Option<Fallback>,
    index: Option<PathBuf>,
    dry_run: bool,
}

impl Import {
    /// Reads the arguments. Fails with a sentence without its full stop.
    pub fn parse(
        words: &[String],
        owner: Option<&str>,
        index: Option<PathBuf>,
        dry_run: bool,
    ) -> Result<Import, String> {
        let names = PROGRAMS.map(|(name, _)| name).join(", ");
        let [from, path] = words else {
            return Err(format!(
                "import takes a program and a folder; the programs are {names}"
            ));
        };
        let program = PROGRAMS.iter().find(|(name, _)| name == from);
        let Some((_, program)) = program else {
            return Err(format!(
                "unknown program {from:?}; the programs are {names}"
            ));
        };
        let fallback = match owner.map(|owner| (owner, Fallback::parse(owner))) {
            Some((owner, None)) => return Err(format!("{owner:?} is not an address")),
            Some((_, fallback)) => fallback,
            None => None,
        };
        let knows_no_owner = matches!(program, Program::Plain | Program::SharePhp);
        if knows_no_owner && !matches!(fallback, Some(Fallback::Jid(_))) {
            return Err(format!(
                "{from} does not store the owners of files; add --owner JID"
            ));
        }
        if *program == Program::Django && index.is_none() {
            return Err("django needs the exported table; add --index FILE".to_owned());
        }
        Ok(Import {
            program: *program,
            path: path.into(),
            fallback,
            index,
            dry_run,
        })
    }

    /// Imports everything, or with `dry_run` only tells what would be done. Fails if that could not be completed.
    pub fn run(&self, config: &Config, out: &mut dyn Write) -> Result<(), String> {
        sys::clear_umask();
        let source = sys::open_root(&self.path)
            .map_err(|error| format!("cannot open {}: {error}.", self.path.display()))?;
        if overlap(&self.path, &config.storage_path) {
            return Err(format!(
                "{} and storage_path {} lie within each other.",
                self.path.display(),
                config.storage_path.display()
            ));
        }
        let store = Store::open_beside(&config.storage_path, !self.dry_run);
        let Some(mut store) = store.map_err(|error| error.to_string())? else {
            return Err(format!(
                "storage_path {} does not exist; start upslot once, or create the folder for its user.",
                config.storage_path.display()
            ));
        };
        if !self.dry_run {
            store.trim_journal(sys::now().wall);
            let prepared = store.prepare_uploads(config.file_mode, config.dir_mode);
            prepared.map_err(|error| error.to_string())?;
        }
        let fallback = self.fallback.clone();
        let placer = Placer::new(config, store, source, fallback, self.dry_run);
        let mut placer = placer.map_err(|error| format!("cannot read storage_path: {error}."))?;
        let read = self.read(&mut placer);
        let finished = placer.finish();
        placer.report.print(self.dry_run, out)?;
        read.and(finished)
    }

    fn read(&self, placer: &mut Placer) -> Result<(), String> {
        let index = |default: &Path| self.index.clone().unwrap_or_else(|| default.to_owned());
        match self.program {
            Program::FileShare => sources::file_share(placer, &index(&self.path.join(UPLOADS))),
            Program::HttpUpload => {
                let parent = self.path.join("..");
                sources::http_upload(placer, &index(&parent))
            }
            Program::Ejabberd => sources::tree(placer, 3, Record::of_docroot),
            Program::Plain => sources::tree(placer, MAX_DEPTH, Record::of_plain),
            Program::SharePhp => sources::hashed(placer),
            Program::Django => sources::django(placer, &index(Path::new(""))),
        }
    }
}

/// Whether one of the folders is the other, or lies in it.
fn overlap(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one.starts_with(&other) || other.starts_with(&one),
        _ => false,
    }
}
