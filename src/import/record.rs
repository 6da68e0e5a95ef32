//! What other programs tell about the files that they stored: pure functions from their records and paths.
//!
//! | program | record | path in a link | file |
//! | --- | --- | --- | --- |
//! | Prosody, `mod_http_file_share` | list `uploads` | `<slot>/<name>`, the name is not checked | `http_file_share/<slot, encoded>.bin` |
//! | Prosody and Metronome, `mod_http_upload` | list of each user | `<random>/<name>` | the same |
//! | ejabberd, `mod_http_upload` | | `<SHA-1 of the JID>/<random>/<name>` | the same |
//! | prosody-filer, hmac-file-server | | `<random>/<name>` | the same |
//! | `share.php` | | any | `store-<SHA-256 of the path>`, and its type in `store-…-type` |
//! | django-xmpp-http-upload | table | `<random>/<name>` | column `file`, below `MEDIA_ROOT` |

use data_encoding::HEXLOWER;

use crate::http::mime;
use crate::import::lua::Table;
use crate::jid::BareJid;
use crate::layout::{self, LinkDigest, RANDOM_BYTES, slot_digest};
use crate::slot::jwt::Members;
use crate::slot::name;

/// The name of a file whose name is not known.
const UNNAMED: &str = "file";

/// Name of the folder with the files of Prosody's file share.
pub const SHARE_FOLDER: &str = "http_file_share";

/// Why there is no record; completes the sentence "not imported, because".
pub type Reason = &'static str;

const DAMAGED: Reason = "the record is damaged";
const UNUSED: Reason = "the upload slot was never used";
const PATH: Reason = "the path is not of the expected form";
pub const HIDDEN: Reason = "its name begins with a dot";

/// The owner of a file, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOwner {
    /// The name of the owner folder.
    Folder(String),
    /// The local part of the address.
    Local(String),
    Unknown,
}

/// One file of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The digest of the path in its link.
    pub link: LinkDigest,
    pub owner: FileOwner,
    /// Valid as the name of a stored file.
    pub name: String,
    /// Whether the name in the link begins with a dot, so that upslot does not serve the link.
    pub is_hidden: bool,
    pub content_type: Option<String>,
    /// When it was stored, in Unix seconds; `None` means its modification time.
    pub stored: Option<u64>,
    /// Bytes; `None` means the size of the file.
    pub size: Option<u64>,
    /// Where the file is, below the folder of the import.
    pub file: Vec<u8>,
}

impl Record {
    fn new(link: &[u8], file: Vec<u8>, name: &str) -> Record {
        let is_hidden = name.starts_with('.');
        let mut name = name::clean(name);
        if name.is_empty() {
            name.push_str(UNNAMED);
        }
        Record {
            link: slot_digest(link),
            owner: FileOwner::Unknown,
            name,
            is_hidden,
            content_type: None,
            stored: None,
            size: None,
            file,
        }
    }

    /// A record whose path in the link is that of the file.
    fn at(path: Vec<u8>) -> Result<Record, Reason> {
        if !is_relative(&path) {
            return Err(PATH);
        }
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| "the file name is not UTF-8")?;
        Ok(Record::new(&path, path.clone(), name))
    }

    fn owned_by(mut self, owner: &str) -> Record {
        if let Some(owner) = BareJid::parse(owner) {
            self.owner = FileOwner::Folder(layout::owner_folder(&owner));
        }
        self
    }

    /// Sets the type, unless it is not valid or says nothing.
    pub fn typed(mut self, content_type: Option<&str>) -> Record {
        let told = content_type.filter(|t| mime::is_valid(t) && *t != mime::UNKNOWN);
        self.content_type = told.map(str::to_owned);
        self
    }

    /// An item of the list `uploads` of Prosody's file share.
    pub fn of_file_share(item: &Table) -> Result<Record, Reason> {
        let attributes = item.table("attr").ok_or(DAMAGED)?;
        let slot = item.text("key").filter(|slot| !slot.is_empty());
        let slot = slot.ok_or(DAMAGED)?;
        let name = attributes.text("filename").ok_or(DAMAGED)?;
        let size = attributes.number("size").ok_or(DAMAGED)?;
        let mut record = Record::new(slot.as_bytes(), share_path(slot), name)
            .typed(attributes.text("content-type"))
            .owned_by(item.text("with").unwrap_or_default());
        record.stored = item.number("when");
        record.size = Some(size);
        Ok(record)
    }

    /// A file of Prosody's file share without an item, by the name in its folder.
    pub fn of_unlisted(file: &[u8]) -> Result<Record, Reason> {
        let slot = file
            .strip_suffix(b".bin")
            .ok_or("the upload is unfinished")?;
        let slot = layout::decode_segment(slot).ok_or(PATH)?;
        let path = [SHARE_FOLDER.as_bytes(), b"/", file].concat();
        if !is_relative(&path) {
            return Err(PATH);
        }
        Ok(Record::new(&slot, path, UNNAMED))
    }

    /// An item of a user's list of `mod_http_upload`, of Prosody or Metronome.
    pub fn of_http_upload(owner: &str, item: &Table) -> Result<Record, Reason> {
        let (folder, name) = (item.text("dir"), item.text("filename"));
        let (folder, name) = folder.zip(name).ok_or(DAMAGED)?;
        if folder.contains('/') || name.contains('/') {
            return Err(PATH);
        }
        let mut record = Record::at(format!("{folder}/{name}").into_bytes())?.owned_by(owner);
        record.stored = item.number("time");
        record.size = item.number("size");
        Ok(record)
    }

    /// A file below the `docroot` of ejabberd.
    pub fn of_docroot(path: &[u8]) -> Result<Record, Reason> {
        let user = path.split(|b| *b == b'/').next().unwrap_or_default();
        if path.split(|b| *b == b'/').count() != 3 {
            return Err(PATH);
        }
        let mut record = Record::at(path.to_vec())?;
        record.owner = match HEXLOWER.decode(user) {
            // SHA-1 of the bare JID, as in the names of owner folders.
            Ok(digest) if digest.len() == 20 => {
                FileOwner::Folder(data_encoding::BASE64URL_NOPAD.encode(&digest))
            }
            _ => match std::str::from_utf8(user) {
                Ok(local) => FileOwner::Local(local.to_owned()),
                Err(_) => FileOwner::Unknown,
            },
        };
        Ok(record)
    }

    /// A file of a program that uses the path in the link as its own, and knows no owner.
    pub fn of_plain(path: &[u8]) -> Result<Record, Reason> {
        Record::at(path.to_vec())
    }

    /// A file of `share.php`, whose name is a digest; `content_type` is from the file beside it.
    pub fn of_hashed(file: &[u8], content_type: Option<&str>) -> Result<Record, Reason> {
        let digest = file.strip_prefix(b"store-").ok_or(PATH)?;
        let digest = HEXLOWER.decode(digest).map_err(|_| PATH)?;
        if digest.len() != 32 {
            return Err(PATH);
        }
        let mut record = Record::new(b"", file.to_vec(), UNNAMED).typed(content_type);
        record.link.copy_from_slice(&digest[..RANDOM_BYTES]);
        let extension = record.content_type.as_deref().and_then(mime::extension);
        if let Some(extension) = extension {
            record.name = format!("{UNNAMED}.{extension}");
        }
        Ok(record)
    }

    /// A row of the table of django-xmpp-http-upload: one object of a JSON array, on a line of its own. `None` for a line
    /// that holds no row.
    pub fn of_django(line: &[u8]) -> Option<Result<Record, Reason>> {
        let line = line.trim_ascii();
        let line = line.strip_prefix(b"[").unwrap_or(line);
        let line = line.strip_suffix(b"]").unwrap_or(line);
        let line = line.strip_suffix(b",").unwrap_or(line).trim_ascii();
        (!line.is_empty()).then(|| django_row(line))
    }
}

fn django_row(row: &[u8]) -> Result<Record, Reason> {
    let mut row = Members::parse(row).map_err(|_| DAMAGED)?;
    let mut text = |name| row.text(name).map_err(|_| DAMAGED);
    let (file, random, name) = (text("file")?, text("hash")?, text("name")?);
    let (owner, content_type) = (text("jid")?, text("type")?);
    let file = file.filter(|file| !file.is_empty()).ok_or(UNUSED)?;
    let (random, name) = random.zip(name).ok_or(DAMAGED)?;
    if !is_relative(file.as_bytes()) {
        return Err(PATH);
    }
    let link = format!("{random}/{name}");
    let mut record = Record::new(link.as_bytes(), file.into_bytes(), &name)
        .typed(content_type.as_deref())
        .owned_by(owner.as_deref().unwrap_or_default());
    record.size = row.integer("size").map_err(|_| DAMAGED)?;
    Ok(record)
}

/// The file of a slot of Prosody's file share: everything but ASCII letters and digits is encoded.
fn share_path(slot: &str) -> Vec<u8> {
    let mut path = format!("{SHARE_FOLDER}/");
    for byte in slot.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => path.push(char::from(byte)),
            false => path.push_str(&format!("%{byte:02x}")),
        }
    }
    path.push_str(".bin");
    path.into_bytes()
}

/// Whether a path stays below the folder to which it is relative.
fn is_relative(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').all(|segment| {
        !matches!(segment, b"" | b"." | b"..")
            && segment.len() <= layout::MAX_NAME
            && !segment.contains(&0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::lua::{Item, Items};

    const ROMEO: &str = "Q_7dsld2o0PGmDXH553Cx_WVmKY";

    fn item(text: &str) -> Table {
        let mut items = Items::default();
        items.feed(format!("item({text});\n").as_bytes());
        match items.next_item() {
            Some(Item::Table(table)) => table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn file_share() {
        let text = "{attr={filename='a/b.jpg',size='5',['content-type']='image/jpeg'},key='a_B-1',when=7,\
                    with='Romeo@montague.tld'}";
        let record = Record::of_file_share(&item(text)).unwrap();
        let expected = Record {
            link: slot_digest(b"a_B-1"),
            owner: FileOwner::Folder(ROMEO.to_owned()),
            name: "a_b.jpg".to_owned(),
            is_hidden: false,
            content_type: Some("image/jpeg".to_owned()),
            stored: Some(7),
            size: Some(5),
            file: b"http_file_share/a%5fB%2d1.bin".to_vec(),
        };
        assert_eq!(record, expected);
        let hostile = text.replace("a_B-1", "../../etc/passwd");
        let record = Record::of_file_share(&item(&hostile)).unwrap();
        assert_eq!(
            record.file,
            b"http_file_share/%2e%2e%2f%2e%2e%2fetc%2fpasswd.bin"
        );
        let odd = text
            .replace("image/jpeg", "text/html\\r\\nX: y")
            .replace("Romeo", "a b");
        let record = Record::of_file_share(&item(&odd)).unwrap();
        assert_eq!(
            (record.content_type, record.owner),
            (None, FileOwner::Unknown)
        );
        for broken in [
            text.replace("size='5'", "size='-5'"),
            text.replace("size='5'", "size='99999999999999999999'"),
            text.replace("key", "kex"),
            text.replace("a_B-1", ""),
            text.replace("a/b.jpg", "\\255"),
            "{}".to_owned(),
        ] {
            assert_eq!(
                Record::of_file_share(&item(&broken)),
                Err(DAMAGED),
                "{broken}"
            );
        }
        let unlisted = Record::of_unlisted(b"a%5fB%2d1.bin").unwrap();
        assert_eq!(
            (unlisted.link, unlisted.file),
            (expected.link, expected.file)
        );
        for file in [&b"a.bin~"[..], b"../a.bin", b"a%zz.bin"] {
            assert!(
                Record::of_unlisted(file).is_err(),
                "{}",
                file.escape_ascii()
            );
        }
    }

    #[test]
    fn http_upload() {
        let text = "{filename='a.jpg',dir='Xy',size=5,time=7}";
        let record = Record::of_http_upload("romeo@montague.tld", &item(text)).unwrap();
        assert_eq!(record.link, slot_digest(b"Xy/a.jpg"));
        assert_eq!(record.owner, FileOwner::Folder(ROMEO.to_owned()));
        assert_eq!((record.stored, record.size), (Some(7), Some(5)));
        for broken in ["..", ".", "", "a/b", "a\\000"] {
            let text = text.replace("Xy", broken);
            assert!(Record::of_http_upload("a", &item(&text)).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        let path = b"43feddb25776a343c69835c7e79dc2c7f59598a6/a1B2/tr\xc3\xa8s_cool.jpg";
        let record = Record::of_docroot(path).unwrap();
        assert_eq!(record.owner, FileOwner::Folder(ROMEO.to_owned()));
        assert_eq!(record.link, slot_digest(path));
        assert_eq!(record.name, "très_cool.jpg");
        let record = Record::of_docroot(b"romeo/a1B2/x").unwrap();
        assert_eq!(record.owner, FileOwner::Local("romeo".to_owned()));
        for path in [&b"a/b"[..], b"a/b/c/d", b"a/../c", b"a//c", b"a/b/\xff"] {
            assert!(Record::of_docroot(path).is_err(), "{}", path.escape_ascii());
        }
        let digest =
            HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, b"u/a.png").as_ref());
        let record = Record::of_hashed(format!("store-{digest}").as_bytes(), Some("image/png"));
        let record = record.unwrap();
        assert_eq!(record.link, slot_digest(b"u/a.png"));
        assert_eq!(record.name, "file.png");
        for file in ["store-", "store-00", "x", "store-../../../etc/passwd"] {
            assert!(Record::of_hashed(file.as_bytes(), None).is_err(), "{file}");
        }
    }

    #[test]
    fn django() {
        let row = r#"{"jid":"romeo@montague.tld","name":"a.jpg","size":5,"type":null,"hash":"H","file":"http_upload/H/a_1.jpg"}"#;
        for line in [
            format!("[{row},"),
            format!("{row},\r"),
            format!("{row}]"),
            row.to_owned(),
        ] {
            let record = Record::of_django(line.as_bytes()).unwrap().unwrap();
            assert_eq!(record.link, slot_digest(b"H/a.jpg"), "{line}");
            assert_eq!(record.file, b"http_upload/H/a_1.jpg");
            assert_eq!(record.owner, FileOwner::Folder(ROMEO.to_owned()));
            assert_eq!((record.size, record.content_type), (Some(5), None));
        }
        for line in ["", "[", "]", " \n"] {
            assert_eq!(Record::of_django(line.as_bytes()), None, "{line:?}");
        }
        for (row, reason) in [
            (row.replace("\"http_upload/H/a_1.jpg\"", "null"), UNUSED),
            (row.replace("http_upload", ".."), PATH),
            (row.replace("http_upload", ""), PATH),
            (row.replace(":5", ":-5"), DAMAGED),
            (row.replace(":5", ":1e99"), DAMAGED),
            (row.replace("\"H\"", "7"), DAMAGED),
            ("{".to_owned(), DAMAGED),
            ("7".to_owned(), DAMAGED),
        ] {
            assert_eq!(
                Record::of_django(row.as_bytes()),
                Some(Err(reason)),
                "{row}"
            );
        }
    }
}
