import { randomUUID } from 'node:crypto';
import type { CreateSpec, CustomizeSpec } from '../../src/protocol/job-spec.js';

/** The specification of a customize job. */
export function aJobSpec(values: Partial<CustomizeSpec> = {}): CustomizeSpec {
  return {
    job_id: randomUUID(),
    job_type: 'customize',
    arch: 'x86_64',
    image_root_archive_name: 'result',
    kernel_file_name: 'vmlinuz',
    initrd_file_name: 'initrd',
    kernel_parameters_file_name: 'kernel-parameters',
    require_dkms: false,
    build_env_size: 10,
    job_mem_size: 1,
    public_key: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Jv7vDqmPHyeLAEnxxDcQ9ahvQrC9PtCpNSWZ3xJq0 test',
    source: { artifact: { bucket: 'boot-images', key: 'source/rootfs' }, etag: 'e', size: 1, md5: null, file: null },
    shell: { name: 'customize', jail: false, listenAddress: '127.0.0.1', port: 20_000 },
    packing: { compression: 'source', gzipLevel: 6, zstdLevel: 3, memoryMib: 512, processors: 0 },
    bucket: 'boot-images',
    ca_certificate: null,
    server_url: 'http://127.0.0.1:1',
    token: null,
    ...values,
  };
}

/** The specification of a create job. */
export function aCreateSpec(values: Partial<CreateSpec> = {}): CreateSpec {
  const { shell: _, ...common } = aJobSpec();
  return {
    ...common,
    job_type: 'create',
    recipe: { id: randomUUID(), name: 'recipe', template_dictionary: [] },
    shell: null,
    unpackLimits: { maxBytes: 1 << 30, maxEntries: 1000 },
    repositorySeconds: 60,
    buildSeconds: 0,
    ...values,
  };
}
