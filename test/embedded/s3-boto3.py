"""What boto3 makes of an S3 server, as one JSON object on standard output; s3-boto3.spec.ts judges it.

Arguments: endpoint, access key, secret key, bucket (made here), a directory for files.
"""

import hashlib
import io
import json
import os
import sys
import urllib.error
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1024 * 1024
endpoint, access_key, secret_key, bucket, directory = sys.argv[1:]
s3 = boto3.client(
    "s3",
    endpoint_url=endpoint,
    aws_access_key_id=access_key,
    aws_secret_access_key=secret_key,
    region_name="us-east-1",
    config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
)


def md5(content):
    return hashlib.md5(content).hexdigest()


def code_of(call, **arguments):
    """The error code that a call ends with; None where it succeeds."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def fetch(url, data=None, method="GET"):
    """Status and content of a url."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def small_object():
    content = os.urandom(100_000)
    put = s3.put_object(
        Bucket=bucket, Key="dir/small object+ü", Body=content, ContentType="application/x-test", Metadata={"md5sum": md5(content)}
    )
    got = s3.get_object(Bucket=bucket, Key="dir/small object+ü")
    head = s3.head_object(Bucket=bucket, Key="dir/small object+ü")
    part = s3.get_object(Bucket=bucket, Key="dir/small object+ü", Range="bytes=10-19")
    return {
        "etag_is_md5": put["ETag"] == f'"{md5(content)}"',
        "same": got["Body"].read() == content,
        "metadata_is_md5": head["Metadata"] == {"md5sum": md5(content)},
        "length": head["ContentLength"],
        "type": head["ContentType"],
        "same_range": part["Body"].read() == content[10:20],
        "content_range": part["ContentRange"],
    }


def transfer(size):
    """A file of the size sent and fetched again by the transfer manager, in parts of 5 MiB from 8 MiB on."""
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    content = os.urandom(size)
    sent, fetched = os.path.join(directory, "sent"), os.path.join(directory, "fetched")
    with open(sent, "wb") as file:
        file.write(content)
    s3.upload_file(sent, bucket, "transfer", ExtraArgs={"Metadata": {"size": str(size)}}, Config=config)
    s3.download_file(bucket, "transfer", fetched, Config=config)
    with open(fetched, "rb") as file:
        same = file.read() == content
    head = s3.head_object(Bucket=bucket, Key="transfer")
    parts = [content[start : start + 5 * MIB] for start in range(0, size, 5 * MIB)]
    digest = md5(b"".join(bytes.fromhex(md5(part)) for part in parts)) + f"-{len(parts)}"
    return {
        "same": same,
        "metadata": head["Metadata"],
        "etag_of_parts": head["ETag"] == f'"{digest}"',
        "etag_of_whole": head["ETag"] == f'"{md5(content)}"',
        "uploads_left": len(s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])),
    }


def stream():
    """A stream whose length boto3 does not know."""

    class Stream(io.RawIOBase):
        left = 12 * MIB

        def readable(self):
            return True

        def read(self, size=-1):
            size = min(self.left, MIB if size < 0 else size)
            self.left -= size
            return b"s" * size

    s3.upload_fileobj(Stream(), bucket, "stream")
    got = s3.get_object(Bucket=bucket, Key="stream")["Body"].read()
    return {"same": got == b"s" * (12 * MIB)}


def copies():
    content = b"content of the source"
    s3.put_object(Bucket=bucket, Key="source", Body=content, Metadata={"a": "1"})
    source = {"Bucket": bucket, "Key": "source"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="changed", CopySource=source, Metadata={"b": "2"}, MetadataDirective="REPLACE")
    s3.copy({"Bucket": bucket, "Key": "stream"}, bucket, "managed", Config=TransferConfig(multipart_threshold=5 * MIB))
    return {
        "same": s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == content,
        "metadata": s3.head_object(Bucket=bucket, Key="copy")["Metadata"],
        "changed_metadata": s3.head_object(Bucket=bucket, Key="changed")["Metadata"],
        "managed_length": s3.head_object(Bucket=bucket, Key="managed")["ContentLength"],
        "missing": code_of(s3.copy_object, Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "missing"}),
    }


def lists():
    keys = [f"list/{index:02}/ü +" for index in range(25)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="list/", PaginationConfig={"PageSize": 10}))
    first = s3.get_paginator("list_objects").paginate(Bucket=bucket, Prefix="list/", PaginationConfig={"PageSize": 10})
    grouped = s3.list_objects_v2(Bucket=bucket, Prefix="list/", Delimiter="/", MaxKeys=100)
    return {
        "pages": [page["KeyCount"] for page in pages],
        "same": [item["Key"] for page in pages for item in page["Contents"]] == keys,
        "same_in_version_1": [item["Key"] for page in first for item in page["Contents"]] == keys,
        "prefixes": len(grouped["CommonPrefixes"]),
    }


def deletions():
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix="list/")["Contents"]]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    s3.delete_object(Bucket=bucket, Key="copy")
    return {
        "same": sorted(item["Key"] for item in answer["Deleted"]) == keys,
        "left": s3.list_objects_v2(Bucket=bucket, Prefix="list/")["KeyCount"],
        "deleted": code_of(s3.head_object, Bucket=bucket, Key="copy"),
        "again": code_of(s3.delete_object, Bucket=bucket, Key="copy"),
    }


def presigned():
    def url(method, key, expires=60):
        return s3.generate_presigned_url(method, Params={"Bucket": bucket, "Key": key}, ExpiresIn=expires)

    put = fetch(url("put_object", "presigned ü"), b"by url", "PUT")
    got = fetch(url("get_object", "presigned ü"))
    return {
        "put": put[0],
        "get": [got[0], got[1].decode()],
        "other_method": fetch(url("get_object", "presigned ü"), b"x", "PUT")[0],
        "other_key": fetch(url("get_object", "presigned ü").replace("presigned", "other"))[0],
    }


def errors():
    wrong = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=access_key, aws_secret_access_key="wrong", region_name="us-east-1"
    )
    return {
        "missing_key": code_of(s3.get_object, Bucket=bucket, Key="missing"),
        "missing_bucket": code_of(s3.get_object, Bucket="missing-bucket", Key="missing"),
        "existing_bucket": code_of(s3.create_bucket, Bucket=bucket),
        "full_bucket": code_of(s3.delete_bucket, Bucket=bucket),
        "wrong_secret": code_of(wrong.put_object, Bucket=bucket, Key="x", Body=b"x" * MIB),
        "not_modified": code_of(s3.get_object, Bucket=bucket, Key="source", IfNoneMatch=s3.head_object(Bucket=bucket, Key="source")["ETag"]),
    }


s3.create_bucket(Bucket=bucket)
print(
    json.dumps(
        {
            "small_object": small_object(),
            "transfer_of_1_mib": transfer(MIB),
            "transfer_of_18_mib": transfer(18 * MIB + 123),
            "stream": stream(),
            "copies": copies(),
            "lists": lists(),
            "deletions": deletions(),
            "presigned": presigned(),
            "errors": errors(),
        }
    )
)
