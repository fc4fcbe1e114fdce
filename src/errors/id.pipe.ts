import { Injectable, type PipeTransform } from '@nestjs/common';
import { problems } from './problems.js';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** An id in a path, in any case. What is no UUID cannot be the id of a record. */
@Injectable()
export class IdPipe implements PipeTransform<string, string> {
  transform(id: string): string {
    if (!UUID.test(id)) throw problems.noSuchRecord('record', id.slice(0, 64));
    return id.toLowerCase();
  }
}
