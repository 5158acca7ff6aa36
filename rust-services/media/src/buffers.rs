// SPDX-License-Identifier: Apache-2.0

//! The ioctls that are about the buffers of one queue, whatever is in them.

use rustix::io::Errno;

use crate::function::Context;
use crate::outbox::Session;
use crate::payload::{Answer, BufferRequest, Input, MAX_PLANE_BYTES, change};
use crate::queue::{MAX_BUFFERS, Queue, Wants};
use crate::v4l2::{BufType, Buffer, CreateBuffers, Ioctl, Memory, RequestBuffers};

/// Of which queue an ioctl about buffers or streaming speaks. `None` for other ioctls.
///
/// # Errors
/// EINVAL where it is cut off or names none.
pub fn queue_of(ioctl: Ioctl, mut input: Input<'_>) -> Option<Result<BufType, Errno>> {
    let code = match ioctl {
        Ioctl::ReqBufs => input.take::<RequestBuffers>().map(|request| request.type_),
        Ioctl::CreateBufs => input
            .take::<CreateBuffers>()
            .map(|create| create.format.type_),
        Ioctl::QueryBuf | Ioctl::PrepareBuf | Ioctl::QBuf => {
            input.take::<Buffer>().map(|buffer| buffer.type_)
        }
        Ioctl::StreamOn | Ioctl::StreamOff => input.take(),
        _ => return None,
    };
    Some(code.and_then(BufType::parse))
}

/// Runs an ioctl about buffers; those about streaming are the function's own.
///
/// # Errors
/// As the queue says; ENOTTY for other ioctls.
pub fn run(
    queue: &mut Queue,
    session: Session,
    ioctl: Ioctl,
    mut input: Input<'_>,
    wants: Wants<'_>,
    context: &Context<'_>,
) -> Result<Answer, Errno> {
    match ioctl {
        Ioctl::ReqBufs => change(input, |request: &mut RequestBuffers| {
            queue.request(session, request, wants, context.budget)
        }),
        Ioctl::CreateBufs => change(input, |create: &mut CreateBuffers| {
            create.capabilities = Queue::capabilities(context.budget);
            (create.flags, create.reserved) = (0, [0; 5]);
            create.max_num_buffers = MAX_BUFFERS;
            if create.count == 0 {
                create.index = queue.len();
                return Ok(());
            }
            if !has_room(queue.type_(), create, wants.sizes) {
                return Err(Errno::INVAL);
            }
            let sizes = lengths(queue.type_(), create, wants.sizes.len())?;
            let (memory, count) = (create.memory, create.count);
            (create.index, create.count) =
                queue.create(session, memory, count, &sizes, context.budget)?;
            Ok(())
        }),
        Ioctl::QueryBuf => {
            let mut request = BufferRequest::take(&mut input)?;
            queue.query(&mut request)?;
            if queue.memory() == Memory::Mmap {
                // They have their own.
            } else if queue.type_().is_mplane() {
                for (plane, &size) in request.planes.iter_mut().zip(wants.sizes) {
                    plane.length = size;
                }
            } else {
                request.buffer.length = wants.sizes.first().copied().unwrap_or(0);
            }
            Ok(request.answer())
        }
        Ioctl::PrepareBuf => {
            let mut request = BufferRequest::take(&mut input)?;
            queue.prepare(session, &mut request, wants.most)?;
            queue.query(&mut request)?;
            Ok(request.answer())
        }
        Ioctl::QBuf => {
            let mut request = BufferRequest::take(&mut input)?;
            if context.outbox.is_full() {
                return Err(Errno::BUSY);
            }
            queue.queue(session, &mut request, &mut input, context, wants)?;
            Ok(request.answer())
        }
        _ => Err(Errno::NOTTY),
    }
}

fn has_room(type_: BufType, create: &CreateBuffers, sizes: &[u32]) -> bool {
    if !type_.is_mplane() {
        let least = sizes.first().copied().unwrap_or(0);
        return create.format.pix().sizeimage >= least;
    }
    let pix = create.format.pix_mplane();
    let planes = pix.planes;
    usize::from(pix.num_planes) == sizes.len()
        && planes
            .iter()
            .zip(sizes)
            .all(|(plane, &size)| plane.sizeimage >= size)
}

/// Bytes of each plane of new buffers, as their program wants them.
fn lengths(type_: BufType, create: &CreateBuffers, planes: usize) -> Result<Vec<u32>, Errno> {
    let sizes: Vec<u32> = if type_.is_mplane() {
        let pix = create.format.pix_mplane();
        let all = pix.planes;
        all.iter()
            .take(planes)
            .map(|plane| plane.sizeimage)
            .collect()
    } else {
        vec![create.format.pix().sizeimage]
    };
    if sizes.iter().any(|&size| size > MAX_PLANE_BYTES) {
        return Err(Errno::INVAL);
    }
    Ok(sizes)
}
