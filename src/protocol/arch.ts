/** Architectures that images are built for, by the names that the API uses. */
export const ARCHES = ['x86_64', 'aarch64'] as const;
export type Arch = (typeof ARCHES)[number];

/** The name under which a distribution installs its kernel in `/boot`, where a request names none. */
export const DEFAULT_KERNEL_FILE_NAME: Record<Arch, string> = { x86_64: 'vmlinuz', aarch64: 'Image' };
