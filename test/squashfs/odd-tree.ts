/** What is easily lost on the way: attributes, capabilities, ACLs, devices, links, holes, odd names, old times, large owners. */
export const ODD_TREE = String.raw`
  mkdir -p etc/apt usr/bin opt/{d1,d2,opaque,renamed/sub,linked}; cd opt
  echo x > x1; setfattr -n user.color -v blue x1; setfattr -n trusted.kept -v s3 x1; setfattr -n security.foo -v bar x1
  echo c > capable; chmod 755 capable; setcap cap_net_bind_service+ep capable
  echo s > suid; chmod 4755 suid; echo s > sgid; chgrp 8 sgid; chmod 2755 sgid; mkdir sticky; chmod 1777 sticky
  mknod null c 1 3; mknod block b 7 200; mkfifo fifo
  echo l > linked/a; ln linked/a linked/b; ln linked/a d1/c
  truncate -s 200M sparse; echo middle | dd of=sparse bs=1 seek=100000000 conv=notrunc status=none
  ln -s ../../etc/passwd link; ln -s /nonexistent dangling
  echo old > times; touch -d '2001-02-03 04:05:06.789' times; touch -h -d '1999-01-01' link
  echo a > acl; setfacl -m u:1234:rw acl
  echo 1 > opaque/one; echo 2 > opaque/two; echo r > renamed/f; echo s > renamed/sub/g
  echo u > 'naïve file ☃'; printf x > $'new\nline'
  chown 12345:54321 d2; echo big > owner; chown 4000000000:4000000001 owner; echo p > plain
  cd ..; seq 300000 > usr/bin/large; seq 200000 > usr/bin/other; echo host > etc/hostname; mkdir etc/cron.daily; echo y > etc/apt/y
  for i in $(seq 600); do echo $i > opt/d1/file-$i; done`;
