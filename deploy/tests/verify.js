// Verifies a bundle with npm's @sigstore/verify: verify.js BUNDLE KEY.
const fs = require('fs');
const { createPublicKey } = require('crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { toSignedEntity, Verifier } = require('@sigstore/verify');

const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(process.argv[2], 'utf8')));
const publicKey = createPublicKey(fs.readFileSync(process.argv[3], 'utf8'));
const material = {
  certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [],
  publicKey: () => ({ publicKey, validFor: () => true }),
};
const thresholds = { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 };
new Verifier(material, thresholds).verify(toSignedEntity(bundle));
