import { PickType } from '@nestjs/swagger';
import { PublicKey } from './public-key.entity.js';

/** What a client sends to register a key. */
export class CreatePublicKey extends PickType(PublicKey, ['name', 'public_key'] as const) {}
