//! Changes of a directory of manifests are seen, however they are made.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use wssgate::source::Files;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
}

/// Starts to watch a directory with one Service `a` in `a.yaml`.
async fn watched() -> (TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a")).unwrap();
    let files = started(dir.path()).await;
    (dir, files)
}

async fn started(root: &Path) -> Files {
    let mut files = Files::open(root).unwrap();
    files.load();
    // Nothing changed yet; the watch begins with the first wait.
    let quiet = timeout(Duration::from_millis(300), files.changed()).await;
    assert!(quiet.is_err(), "a change was told that was none");
    files
}

/// Waits for changes until the Services are these.
async fn becomes(files: &mut Files, expected: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(tokio::time::timeout_at(deadline, files.changed()).await.is_ok(), "no change was told");
        let loaded = files.load();
        let found: Vec<_> = loaded.objects.services.keys().map(|key| key.name.as_str()).collect();
        if found == expected {
            return;
        }
    }
}

#[tokio::test]
async fn a_file_that_is_written_in_place() {
    let (dir, mut files) = watched().await;
    fs::write(dir.path().join("a.yaml"), service("b")).unwrap();
    becomes(&mut files, &["b"]).await;
}

#[tokio::test]
async fn a_file_that_an_editor_renames_over() {
    let (dir, mut files) = watched().await;
    fs::write(dir.path().join(".a.yaml.swp"), service("b")).unwrap();
    fs::rename(dir.path().join(".a.yaml.swp"), dir.path().join("a.yaml")).unwrap();
    becomes(&mut files, &["b"]).await;
    // Twice: the inode that was watched first is gone.
    fs::write(dir.path().join("a.yaml~"), service("c")).unwrap();
    fs::rename(dir.path().join("a.yaml~"), dir.path().join("a.yaml")).unwrap();
    becomes(&mut files, &["c"]).await;
}

#[tokio::test]
async fn files_that_come_and_go_in_new_directories() {
    let (dir, mut files) = watched().await;
    fs::create_dir_all(dir.path().join("x/y")).unwrap();
    fs::write(dir.path().join("x/y/b.yaml"), service("b")).unwrap();
    becomes(&mut files, &["a", "b"]).await;
    fs::write(dir.path().join("x/y/b.yaml"), service("c")).unwrap();
    becomes(&mut files, &["a", "c"]).await;
    fs::remove_dir_all(dir.path().join("x")).unwrap();
    becomes(&mut files, &["a"]).await;
}

#[tokio::test]
async fn a_broken_file_and_its_correction() {
    let (dir, mut files) = watched().await;
    fs::write(dir.path().join("a.yaml"), "kind: [").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(tokio::time::timeout_at(deadline, files.changed()).await.is_ok(), "no change was told");
        let loaded = files.load();
        assert_eq!(loaded.objects.services.len(), 1);
        if loaded.problems.len() == 1 {
            break;
        }
    }
    fs::write(dir.path().join("a.yaml"), service("b")).unwrap();
    becomes(&mut files, &["b"]).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_mounted_config_map_that_is_swapped() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir(root.join("..1")).unwrap();
    fs::write(root.join("..1/a.yaml"), service("a")).unwrap();
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let mut files = started(root).await;
    for turn in 2..5 {
        let next = format!("..{turn}");
        fs::create_dir(root.join(&next)).unwrap();
        fs::write(root.join(&next).join("a.yaml"), service(&format!("v{turn}"))).unwrap();
        symlink(&next, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        fs::remove_dir_all(root.join(format!("..{}", turn - 1))).unwrap();
        becomes(&mut files, &[&format!("v{turn}")]).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_is_replaced_whole() {
    // The watched inode is gone with the old directory: polling finds the new one.
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("m");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), service("a")).unwrap();
    let mut files = started(&root).await;
    for name in ["b", "c"] {
        let next = parent.path().join("next");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("a.yaml"), service(name)).unwrap();
        fs::rename(&root, parent.path().join(format!("old-{name}"))).unwrap();
        fs::rename(&next, &root).unwrap();
        becomes(&mut files, &[name]).await;
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_waiting_loses_no_change() {
    let (dir, mut files) = watched().await;
    fs::write(dir.path().join("a.yaml"), service("b")).unwrap();
    // Far shorter than the debounce: given up many times while the change is held back.
    let deadline = Instant::now() + Duration::from_secs(20);
    while timeout(Duration::from_millis(7), files.changed()).await.is_err() {
        assert!(Instant::now() < deadline, "the change was lost");
    }
    assert!(files.load().objects.services.keys().any(|key| key.name == "b"));
}

#[tokio::test]
async fn one_who_edits_for_ever_delays_nobody() {
    let (dir, mut files) = watched().await;
    let path = dir.path().join("b.yaml");
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let editor = tokio::spawn(async move {
        let mut count = 0_u64;
        while stopped.try_recv().is_err() {
            count += 1;
            fs::write(&path, format!("{}# {count}\n", service("b"))).unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    becomes(&mut files, &["a", "b"]).await;
    assert!(!editor.is_finished());
    stop.send(()).unwrap();
    editor.await.unwrap();
}
