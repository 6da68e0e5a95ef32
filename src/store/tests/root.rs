//! The storage folder and its internal folder.

use super::*;

#[test]
fn only_regular_files_are_served() {
    let folder = Folder::new("plain");
    let store = folder.open();
    folder.file("o/r/n", 3, 0);
    folder.file("secret", 3, 0);
    std::os::unix::fs::symlink("n", folder.0.join("o/r/link")).unwrap();
    std::os::unix::fs::symlink("../../secret", folder.0.join("o/r/out")).unwrap();
    std::os::unix::fs::symlink("r", folder.0.join("o/s")).unwrap();
    let fifo = folder.0.join("o/r/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    assert!(store.download(&path("o/r/n")).unwrap().is_some());
    for hidden in [
        "o/r", "o/r/link", "o/r/out", "o/s/n", "o/r/fifo", "o/r/m", "x/y",
    ] {
        assert!(store.download(&path(hidden)).unwrap().is_none(), "{hidden}");
    }
}

#[test]
fn a_replaced_storage_folder_is_reopened() {
    let folder = Folder::new("root");
    let root = Folder(folder.0.join("store"));
    let mut store = root.open();
    let mut now = sys::now();
    assert!(!store.check_root(now.mono));
    put(&mut store, "o/r/n", b"x").unwrap();
    fs::remove_dir_all(&root.0).unwrap();
    now = now.later(Duration::from_secs(2));
    assert!(!store.check_root(now.mono), "there is nothing to take");
    assert!(store.begin(1).is_err() || put(&mut store, "o/r/n", b"x").is_err());
    fs::create_dir(&root.0).unwrap();
    now = now.later(Duration::from_secs(2));
    assert!(store.check_root(now.mono));
    put(&mut store, "o/r/n", b"x").unwrap();
    assert_eq!(root.tree(), ["o/", "o/r/", "o/r/n"]);
}

#[test]
fn leftovers_of_a_crashed_process_are_removed_but_not_the_secret() {
    let folder = Folder::new("leftovers");
    let store = folder.open();
    assert_eq!(store.read_internal("slot_secret").unwrap(), None);
    store.write_internal("slot_secret", b"secret").unwrap();
    assert!(store.write_internal("slot_secret", b"another").is_err());
    drop(store);
    fs::write(folder.0.join(".upslot/upload-1-1"), b"partial").unwrap();
    fs::write(folder.0.join(".upslot/slot_secret.new"), b"secret").unwrap();
    let store = folder.open();
    assert_eq!(
        store.read_internal("slot_secret").unwrap().as_deref(),
        Some(&b"secret"[..])
    );
    let names: Vec<_> = fs::read_dir(folder.0.join(".upslot"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["slot_secret"]);
}

#[test]
fn free_space_excludes_unwritten_bytes_of_uploads() {
    let folder = Folder::new("free");
    let mut store = folder.open();
    let now = sys::now().mono;
    let free = store.free_space(now).unwrap();
    let mut upload = store.begin(1000).unwrap();
    assert_eq!(store.free_space(now), Some(free - 1000));
    store.append(&mut upload, &[0; 400]).unwrap();
    store.complete(&mut upload, None).unwrap();
    assert_eq!(
        store.free_space(now),
        Some(free - 1000),
        "written bytes are gone from the disk instead"
    );
    store.end(upload);
    assert_eq!(store.free_space(now), Some(free - 400));
}
