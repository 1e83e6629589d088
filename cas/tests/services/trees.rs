use kiln_cas::Digest;
use kiln_protos::reapi::{
    Directory, DirectoryNode, FileNode, GetTreeRequest, GetTreeResponse, SymlinkNode,
};
use prost::Message;
use tonic::{Code, Status};

use crate::harness::{BLAKE3, SHA256, Server, refused, start, wire};

fn parent(children: &[(&str, Digest)]) -> Directory {
    let node = |(name, digest): &(&str, Digest)| DirectoryNode {
        name: (*name).into(),
        digest: wire(digest),
    };
    Directory { directories: children.iter().map(node).collect(), ..Default::default() }
}

fn leaf(name: &str) -> Directory {
    let file =
        FileNode { name: name.into(), digest: wire(&SHA256.digest(b"x")), ..Default::default() };
    Directory { files: vec![file], ..Default::default() }
}

async fn pages(server: &Server, request: GetTreeRequest) -> Result<Vec<GetTreeResponse>, Status> {
    let mut stream = server.cas().get_tree(request).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await? {
        pages.push(page);
    }
    Ok(pages)
}

async fn tree(server: &Server, root: &Digest) -> Result<Vec<Directory>, Status> {
    let request = GetTreeRequest { root_digest: wire(root), ..Default::default() };
    Ok(pages(server, request).await?.into_iter().flat_map(|page| page.directories).collect())
}

#[tokio::test]
async fn a_tree_comes_whole_and_duplicates_once() {
    let server = start().await;
    let a = leaf("a");
    let b = leaf("b");
    let (a_digest, b_digest) = (server.put_message(&a).await, server.put_message(&b).await);
    let middle = parent(&[("x", a_digest), ("y", a_digest)]);
    let middle_digest = server.put_message(&middle).await;
    let root = parent(&[("b", b_digest), ("m", middle_digest), ("n", middle_digest)]);
    let root_digest = server.put_message(&root).await;
    assert_eq!(tree(&server, &root_digest).await.unwrap(), [root, b, middle, a]);
}

#[tokio::test]
async fn blake3_trees_work() {
    let server = start().await;
    let child = leaf("a");
    let child_digest = server.put(BLAKE3, child.encode_to_vec()).await;
    let root = parent(&[("c", child_digest)]);
    let root_digest = server.put(BLAKE3, root.encode_to_vec()).await;
    let request = GetTreeRequest {
        instance_name: "in/stance".into(),
        root_digest: wire(&root_digest),
        digest_function: 9,
        ..Default::default()
    };
    let pages = pages(&server, request).await.unwrap();
    assert_eq!(pages[0].directories, [root, child]);
}

#[tokio::test]
async fn an_exponential_tree_is_small() {
    let server = start().await;
    let mut digest = server.put_message(&leaf("bottom")).await;
    for _ in 0..60 {
        digest = server.put_message(&parent(&[("l", digest), ("r", digest)])).await;
    }
    assert_eq!(tree(&server, &digest).await.unwrap().len(), 61);
}

#[tokio::test]
async fn pages_continue_where_their_token_says() {
    let server = start().await;
    let mut children = Vec::new();
    for i in 0..25 {
        let digest = server.put_message(&leaf(&format!("f{i:02}"))).await;
        children.push((format!("d{i:02}"), digest));
    }
    // One child is absent. The server leaves it out, and its pages still line up.
    children.insert(3, ("d02x".into(), SHA256.digest(b"absent")));
    let named: Vec<_> = children.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
    let root = server.put_message(&parent(&named)).await;
    let whole = tree(&server, &root).await.unwrap();
    assert_eq!(whole.len(), 26);

    for page_size in [1, 3, 7, 1000] {
        let request = |page_token: &str| GetTreeRequest {
            root_digest: wire(&root),
            page_size,
            page_token: page_token.into(),
            ..Default::default()
        };
        let all = pages(&server, request("")).await.unwrap();
        assert!(all.iter().all(|page| page.directories.len() <= page_size as usize));
        let (last, others) = all.split_last().unwrap();
        assert_eq!(last.next_page_token, "");
        let mut before = 0;
        for page in others {
            before += page.directories.len();
            let rest = pages(&server, request(&page.next_page_token)).await.unwrap();
            let rest: Vec<_> = rest.into_iter().flat_map(|page| page.directories).collect();
            assert_eq!(rest, whole[before..], "page size {page_size}, after {before}");
        }
    }
}

#[tokio::test]
async fn a_tree_of_too_many_directories_is_refused_clearly() {
    let server = start().await;
    let count = kiln_cas::services::MAX_TREE_DIRECTORIES + 1;
    let name = |i: usize| format!("{i:06}");
    let nodes = (0..count)
        .map(|i| DirectoryNode { name: name(i), digest: wire(&SHA256.digest(name(i).as_bytes())) });
    let root = Directory { directories: nodes.collect(), ..Default::default() };
    let root = server.put_message(&root).await;
    let result = tree(&server, &root).await;
    refused(result, Code::ResourceExhausted, "root_digest: the tree has more than 100000");
}

#[tokio::test]
async fn a_hundred_thousand_entries_in_one_directory_come_through() {
    let server = start().await;
    let file = |i: usize| FileNode {
        name: format!("{i:06}"),
        digest: wire(&SHA256.digest(b"x")),
        ..Default::default()
    };
    let root = Directory { files: (0..100_000).map(file).collect(), ..Default::default() };
    let digest = server.put_message(&root).await;
    assert_eq!(tree(&server, &digest).await.unwrap(), [root]);
}

#[tokio::test]
async fn malformed_directories_are_refused_by_name() {
    let server = start().await;
    let files = |names: &[&str]| Directory {
        files: names.iter().flat_map(|name| leaf(name).files).collect(),
        ..Default::default()
    };
    let link = SymlinkNode { name: "a".into(), target: "t".into(), ..Default::default() };
    let cases = [
        (files(&[".."]), "files[0].name"),
        (files(&["a/b"]), "files[0].name"),
        (files(&[""]), "files[0].name"),
        (files(&["a", "a"]), "files[1].name"),
        (files(&["b", "a"]), "files[1].name"),
        (Directory { symlinks: vec![link], ..files(&["a"]) }, "symlinks[0].name"),
    ];
    for (directory, part) in cases {
        let bad = server.put_message(&directory).await;
        let root = server.put_message(&parent(&[("bad", bad)])).await;
        refused(tree(&server, &root).await, Code::InvalidArgument, part);
    }
    let rubbish = server.put(SHA256, "rubbish").await;
    refused(tree(&server, &rubbish).await, Code::InvalidArgument, "root_digest: directory");
}

#[tokio::test]
async fn bad_requests_for_trees() {
    let server = start().await;
    let absent = SHA256.digest(b"absent");
    refused(tree(&server, &absent).await, Code::NotFound, "root_digest: blob");
    let unset = pages(&server, GetTreeRequest::default()).await;
    refused(unset, Code::InvalidArgument, "root_digest: the digest is not set");
    let root = server.put_message(&leaf("a")).await;
    let request = GetTreeRequest { root_digest: wire(&root), ..Default::default() };
    let token = GetTreeRequest { page_token: "x".into(), ..request.clone() };
    refused(pages(&server, token).await, Code::InvalidArgument, "page_token");
    let size = GetTreeRequest { page_size: -1, ..request };
    refused(pages(&server, size).await, Code::InvalidArgument, "page_size");
}

#[tokio::test]
async fn a_directory_that_is_small_only_on_the_wire_is_refused() {
    let server = start().await;
    // Field 1, an empty file, two bytes each.
    let root = server.put(SHA256, [0x0a, 0].repeat(1 << 20)).await;
    refused(tree(&server, &root).await, Code::InvalidArgument, "it has more than 250000 entries");
}
