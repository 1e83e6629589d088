//! Bills of materials, as SPDX 2.3 and CycloneDX 1.6 in JSON. The same closure gives the same bytes.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::packages::{Package, PackageKind};
use crate::encoding::hex;
use crate::json::{self, JsonError};
use crate::timestamp::Timestamp;

/// What a bill is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Describes<'a> {
    /// The name of the release.
    pub name: &'a str,
    /// SHA-256 of its manifest, in hexadecimal digits.
    pub sha256: &'a str,
    /// When the build ended: a bill of the same release says the same.
    pub created: Timestamp,
    /// Who says so, e.g. `kiln-0.1.0`.
    pub tool: &'a str,
}

/// Why there is no bill.
#[derive(Debug, thiserror::Error)]
pub enum BomError {
    #[error("the bill of materials cannot be written")]
    Json(#[from] JsonError),
}

/// A bill in SPDX 2.3.
pub fn spdx(of: &Describes<'_>, packages: &[Package]) -> Result<Vec<u8>, BomError> {
    let root = json!({
        "SPDXID": "SPDXRef-release",
        "name": of.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": of.sha256}],
    });
    let parts = packages.iter().enumerate().map(|(index, package)| spdx_package(index, package));
    let describes = relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-release");
    let made_of = packages.iter().enumerate().map(|(index, package)| {
        let kind = match package.kind {
            PackageKind::Image => "BUILD_TOOL_OF",
            PackageKind::Main | PackageKind::Repository => "GENERATES",
        };
        relation(&format!("SPDXRef-package-{index}"), kind, "SPDXRef-release")
    });
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": of.name,
        "documentNamespace": format!("urn:uuid:{}", uuid("spdx", of.sha256)),
        "creationInfo": {"created": of.created, "creators": [format!("Tool: {}", of.tool)]},
        "packages": std::iter::once(root).chain(parts).collect::<Vec<_>>(),
        "relationships": std::iter::once(describes).chain(made_of).collect::<Vec<_>>(),
    });
    Ok(json::write(&document)?)
}

fn relation(one: &str, kind: &str, other: &str) -> Value {
    json!({"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other})
}

fn spdx_package(index: usize, package: &Package) -> Value {
    let purpose = match package.kind {
        PackageKind::Image => "CONTAINER",
        PackageKind::Main | PackageKind::Repository => "SOURCE",
    };
    let mut value = json!({
        "SPDXID": format!("SPDXRef-package-{index}"),
        "name": package.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": purpose,
        "comment": comment(package),
    });
    if !package.sha256.is_empty() {
        value["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": package.sha256}]);
    }
    if !package.version.is_empty() {
        value["versionInfo"] = json!(package.version);
    }
    value
}

fn comment(package: &Package) -> String {
    match package.kind {
        PackageKind::Image => "An image in which actions of the build ran.".to_owned(),
        PackageKind::Main | PackageKind::Repository => format!(
            "{} files that a client uploaded; the checksum is of the list of their paths and digests.",
            package.files
        ),
    }
}

/// A bill in CycloneDX 1.6.
pub fn cyclonedx(of: &Describes<'_>, packages: &[Package]) -> Result<Vec<u8>, BomError> {
    let parts = packages.iter().enumerate().map(|(index, package)| component(index, package));
    let references: Vec<_> = (0..packages.len()).map(|index| format!("package-{index}")).collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid("cyclonedx", of.sha256)),
        "version": 1,
        "metadata": {
            "timestamp": of.created,
            "tools": {"components": [{"type": "application", "name": of.tool}]},
            "component": {
                "type": "container",
                "bom-ref": "release",
                "name": of.name,
                "hashes": [{"alg": "SHA-256", "content": of.sha256}],
            },
        },
        "components": parts.collect::<Vec<_>>(),
        "dependencies": [{"ref": "release", "dependsOn": references}],
    });
    Ok(json::write(&document)?)
}

fn component(index: usize, package: &Package) -> Value {
    let kind = match package.kind {
        PackageKind::Image => "container",
        PackageKind::Main | PackageKind::Repository => "library",
    };
    let mut value = json!({
        "type": kind,
        "bom-ref": format!("package-{index}"),
        "name": package.name,
        "description": comment(package),
    });
    // SHA-256 of a list of files is no hash of the component, which the standard would take it for.
    if package.kind == PackageKind::Image && !package.sha256.is_empty() {
        value["hashes"] = json!([{"alg": "SHA-256", "content": package.sha256}]);
    }
    if package.kind != PackageKind::Image {
        value["properties"] = json!([{"name": "kiln:files-sha256", "value": package.sha256}]);
    }
    if !package.version.is_empty() {
        value["version"] = json!(package.version);
    }
    value
}

/// A name that follows from the content (RFC 9562, version 8).
fn uuid(kind: &str, sha256: &str) -> String {
    let hash = hex(&Sha256::digest(format!("{kind} {sha256}")));
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    format!("{}-{}-8{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}
