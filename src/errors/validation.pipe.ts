import { type ArgumentMetadata, Injectable, type PipeTransform } from '@nestjs/common';
import { plainToInstance } from 'class-transformer';
import { validate, type ValidationError } from 'class-validator';
import { V3_ONLY } from '../database/wire.js';
import { JsonBody } from './json-body.js';
import { isReserved, readMembers } from './members.js';
import { type MemberErrors, problems } from './problems.js';

/** What validators say of an object, by member. */
function memberErrors(errors: readonly ValidationError[]): MemberErrors {
  return Object.fromEntries(errors.map((error) => [error.property, messagesOf(error)]));
}

function messagesOf(error: ValidationError): string[] | MemberErrors {
  if (error.children?.length && !error.constraints) {
    // What stands in for an item that is null has no members to tell about.
    const [only] = error.children;
    if (only?.property === '_schema' && only.value === null) return messagesOf(only);
    return memberErrors(error.children);
  }
  const { whitelistValidation, nestedValidation, unknownValue, ...constraints } = error.constraints ?? {};
  if (whitelistValidation) return ['Unknown field.'];
  const messages = [...new Set(Object.values(constraints))];
  // What has no message but that it is no object (an item of a list among them) has no member to name either.
  return messages.length || !(nestedValidation || unknownValue) ? messages : { _schema: ['Must be an object.'] };
}

/** Python's idea of nothing, which the original answers with 400: null, false, 0, "", [] and {}. */
function isEmpty(value: unknown): boolean {
  return !value || (typeof value === 'object' && Object.keys(value).length === 0);
}

/**
 * Checks bodies and queries against their DTO class. Members are read leniently where the contract wants that (by `@Transform` in the
 * classes), and refused when they are unknown.
 */
@Injectable()
export class ValidationPipe implements PipeTransform {
  async transform(given: unknown, { type, metatype }: ArgumentMetadata): Promise<unknown> {
    const value = given instanceof JsonBody ? given.read() : given;
    if ((type !== 'body' && type !== 'query') || !metatype || metatype === Object || metatype === String) return value;
    // Which version takes a member is decided by the class that its controller names.
    const object = type === 'body' ? readBody(metatype as new () => object, value) : readQuery(metatype, value);
    const errors = await validate(object, {
      whitelist: true,
      // Clients put all kinds of parameters into queries; the original ignores what it does not know, and so do all others.
      forbidNonWhitelisted: type === 'body',
      forbidUnknownValues: false,
      stopAtFirstError: true,
    });
    if (errors.length && type === 'query') throw problems.badQuery(queryMistake(errors));
    if (errors.length) throw problems.invalid(memberErrors(errors));
    return object;
  }
}

/** What is wrong, as a part of a sentence. */
function queryMistake(errors: readonly ValidationError[]): string {
  return errors
    .map((error) => `${error.property}: ${Object.values(error.constraints ?? {}).join(' ')}`.replace(/\.$/, ''))
    .join(', ');
}

function readQuery(type: unknown, value: unknown): object {
  return plainToInstance(type as new () => object, value, { groups: [V3_ONLY] });
}

function readBody(type: new () => object, value: unknown): object {
  refuseNonObjects(value);
  const reserved = Object.keys(value).filter(isReserved);
  if (reserved.length) throw problems.invalid(Object.fromEntries(reserved.map((name) => [name, ['Unknown field.']])));
  return readMembers(type, value);
}

function refuseNonObjects(value: unknown): asserts value is object {
  if (isEmpty(value)) throw problems.noInput();
  if (typeof value !== 'object' || Array.isArray(value)) throw problems.invalid({ _schema: ['Must be an object.'] });
}
